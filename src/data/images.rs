//! Images without labels: files, and all images below folders.

use super::{Dataset, Image, decode};
use crate::error::{Result, failed};
use crate::files;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// Names that image files end with. In a folder other files are passed over.
const EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "tga"];

/// Image files with one label for all.
pub struct ImageFiles {
    paths: Vec<PathBuf>,
    channels: usize,
    classes: Vec<String>,
}

impl ImageFiles {
    /// The files among `paths` as they are, and the images below the folders among them, sorted by path; they come out
    /// with `channels` channels.
    ///
    /// # Errors
    /// When a path is missing or a folder holds no image.
    pub fn find(paths: &[PathBuf], channels: usize) -> Result<Self> {
        let mut found = Vec::new();
        for path in paths {
            if !path.is_dir() {
                if !path.exists() {
                    let message = format!("no image: the file {} does not exist", path.display());
                    return Err(failed(message).hint("name image files, or folders of them").into());
                }
                found.push(path.clone());
                continue;
            }
            let before = found.len();
            for file in walkdir::WalkDir::new(path).sort_by_file_name() {
                let file = file.with_context(|| format!("cannot list the folder {}", path.display()))?;
                if file.file_type().is_file() && is_image(file.path()) {
                    found.push(file.into_path());
                }
            }
            if found.len() == before {
                let message = format!("the folder {} holds no images", path.display());
                let hint = format!("files are looked for that end with .{}", EXTENSIONS.join(", ."));
                return Err(failed(message).hint(hint).into());
            }
        }
        Ok(Self { paths: found, channels, classes: vec!["unknown".to_string()] })
    }

    /// The file of sample `index`.
    pub fn path(&self, index: usize) -> &Path {
        &self.paths[index]
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
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
        let image = decode::decode(&files::read(path)?).with_context(|| path.display().to_string())?;
        Ok(if self.channels == 1 { image.to_gray() } else { image })
    }
}
