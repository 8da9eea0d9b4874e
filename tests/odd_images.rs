//! Images that are not what photographs are, and limits that the system sets a process.

mod common;

use common::{Sandbox, TINY};
use image::{ImageFormat, RgbImage};
use std::process::Command;

/// A WebP of a few bytes that promises 16383 × 16383 pixels.
fn bomb() -> Vec<u8> {
    // Signature, 14 bits each of width and height less one, alpha and version.
    let sides = 16382u32 | 16382 << 14;
    let stream = [&[0x2f][..], &sides.to_le_bytes(), &[0; 15]].concat();
    let chunk = [b"WEBPVP8L", &(stream.len() as u32).to_le_bytes()[..], &stream].concat();
    [b"RIFF", &(chunk.len() as u32).to_le_bytes()[..], &chunk].concat()
}

#[test]
fn an_image_of_too_many_pixels_is_refused_by_its_header() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --set data.synthetic.channels=3 --out run"));
    sandbox.write("bomb.webp", bomb());
    let output = sandbox.senet("predict bomb.webp --run run");
    assert_eq!(output.code, 1, "{}", output.stderr);
    for part in ["bomb.webp", "16383 × 16383 pixels are too many", "178956970"] {
        assert!(output.stderr.contains(part), "no {part:?} in {}", output.stderr);
    }
}

#[test]
fn a_folder_of_tga_images_trains_and_is_verified() {
    let sandbox = Sandbox::new();
    for split in ["train", "val"] {
        for (class, value) in [("dark", 20), ("light", 200)] {
            let folder = sandbox.path(&format!("photos/{split}/{class}"));
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..4 {
                let image = RgbImage::from_pixel(16, 16, image::Rgb([value, number, 0]));
                image.save_with_format(folder.join(format!("{number}.tga")), ImageFormat::Tga).unwrap();
            }
        }
    }
    sandbox.succeed("data verify photos");
    sandbox.succeed("train --data photos --set data.size=16 --batch-size 4 --epochs 1 --out run");
}

#[test]
fn a_limit_of_file_sizes_is_told_and_leaves_no_partial_file() {
    let sandbox = Sandbox::new();
    let words = format!("train {TINY} --out run");
    // Enough for the configuration, and not for the weights.
    let script = "ulimit -f 200; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_senet")])
        .args(words.split_whitespace())
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?}: {stderr}", output.status);
    assert!(stderr.contains("cannot write") && stderr.contains("ulimit -f"), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(sandbox.path("run/checkpoints"))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}
