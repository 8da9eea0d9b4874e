//! Tells the fuzz targets where libtorch lies at run time; a build script cannot set linker arguments for the binaries of
//! another package, so senet's own cannot.

fn main() {
    if let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.to_string_lossy());
    }
}
