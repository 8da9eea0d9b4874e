//! Image files: what they are called, how they are read; and a data set of them without labels.

use super::jpeg::Jpeg;
use super::walk::walk;
use super::{Dataset, Image, decode};
use crate::error::{Result, failed};
use crate::escaped::{escaped, shown};
use crate::files;
use anyhow::Context;
use image::ImageReader;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// More than any image file in use; a larger one is a mistake, and is not read into memory.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Names that image files end with. In a folder other files are passed over.
pub const EXTENSIONS: [&str; 12] =
    ["jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "tga"];

/// Image files with one label for all.
pub struct ImageFiles {
    paths: Vec<PathBuf>,
    channels: usize,
    classes: Vec<String>,
    skipped: u64,
}

impl ImageFiles {
    /// The files among `paths` as they are, and the images below the folders among them by the rules of every data set
    /// ([`walk`](super::walk)), sorted by path; they come out with `channels` channels.
    ///
    /// # Errors
    /// When a path is missing or a folder holds no image.
    pub fn find(paths: &[PathBuf], channels: usize) -> Result<Self> {
        let (mut found, mut skipped) = (Vec::new(), 0);
        for path in paths {
            if !path.is_dir() {
                if !path.exists() {
                    let message = format!("no image: the file {} does not exist", shown(path));
                    return Err(failed(message).hint("name image files, or folders of them").into());
                }
                found.push(path.clone());
                continue;
            }
            let mut below = Vec::new();
            walk(path, OsStr::new(""), &mut |folder| {
                skipped += u64::from(folder.skipped);
                let place = path.join(OsStr::from_bytes(&folder.path));
                below.extend(folder.images.iter().map(|name| place.join(name)));
                true
            })?;
            if below.is_empty() {
                let message = format!("the folder {} holds no images", shown(path));
                let hint = format!("files are looked for that end with .{}", EXTENSIONS.join(", ."));
                return Err(failed(message).hint(hint).into());
            }
            below.sort_unstable();
            found.append(&mut below);
        }
        Ok(Self { paths: found, channels, classes: vec!["unknown".to_string()], skipped })
    }

    /// Files in folders that are not named like images.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The file of sample `index`.
    pub fn path(&self, index: usize) -> &Path {
        &self.paths[index]
    }
}

/// Whether a file's name ends like an image's.
pub fn has_image_extension(name: &[u8]) -> bool {
    name.iter().rposition(|byte| *byte == b'.').is_some_and(|dot| {
        EXTENSIONS.iter().any(|known| name[dot + 1..].eq_ignore_ascii_case(known.as_bytes()))
    })
}

/// Puts the bytes of an image file into `bytes`, in place of what was there.
///
/// # Errors
/// When it cannot be read or is larger than any image.
pub fn read_image_file(path: &Path, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.clear();
    let unreadable = || format!("cannot read {}", shown(path));
    let file = File::open(path).with_context(unreadable)?;
    let size = file.metadata().with_context(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        let message = format!("{}: {size} bytes are too many for an image", shown(path));
        return Err(failed(message).hint("remove or replace the file").into());
    }
    // One more, so that the end is seen without growing.
    bytes.reserve(size as usize + 1);
    file.take(MAX_FILE_BYTES).read_to_end(bytes).with_context(unreadable)?;
    Ok(())
}

/// Width and height of an image file by its header alone, whatever they are.
///
/// # Errors
/// When the bytes are no image, or its header is broken.
pub fn dimensions(bytes: &[u8]) -> Result<(usize, usize)> {
    if decode::is_jpeg(bytes)
        && let Ok(jpeg) = Jpeg::open(bytes)
    {
        return Ok(jpeg.size());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let (width, height) =
        reader.into_dimensions().map_err(|error| failed(error.to_string().to_lowercase()))?;
    Ok((width as usize, height as usize))
}

impl Dataset for ImageFiles {
    fn len(&self) -> usize {
        self.paths.len()
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn channels(&self) -> usize {
        self.channels
    }
    fn natural_size(&self) -> Option<(usize, usize)> {
        None
    }
    fn label(&self, _: usize) -> usize {
        0
    }
    fn image(&self, index: usize) -> Result<Image> {
        let path = &self.paths[index];
        let image = decode::decode(&files::read(path)?).with_context(|| shown(path))?;
        Ok(if self.channels == 1 { image.to_gray() } else { image })
    }
    fn source_name(&self, index: usize) -> String {
        shown(&self.paths[index])
    }
    fn relative_name(&self, index: usize) -> String {
        escaped(self.paths[index].as_os_str().as_bytes())
    }
}
