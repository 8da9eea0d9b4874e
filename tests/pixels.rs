//! Samples beside those that Pillow and torchvision make (`scripts/golden_pixels.py`).

use senet::data::augment::crop::{Window, centre_window};
use senet::data::decode;
use senet::data::sample::Workbench;
use std::fs;
use std::path::Path;

#[test]
fn samples_are_those_of_pillow_and_torchvision() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pixels");
    let (mut bench, mut compared) = (Workbench::new(), 0);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(stem) = name.strip_suffix(".png") else { continue };
        let (picture, what) = stem.split_once('.').unwrap();
        let choose = |width, height| {
            if what == "eval" {
                return centre_window(width, height, 256, 224);
            }
            let sides: Vec<f64> = what.split('-').map(|side| side.parse().unwrap()).collect();
            Window { x: sides[0], y: sides[1], width: sides[2], height: sides[3], closed: true }
        };
        let jpeg = fs::read(folder.join(format!("{picture}.jpg"))).unwrap();
        let mut sample = vec![0; 224 * 224 * 3];
        bench.sample(&jpeg, 224, choose, &mut sample).unwrap();
        let expected = decode::decode(&fs::read(&path).unwrap()).unwrap();
        let off: Vec<u8> = sample.iter().zip(&expected.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
        let mean = off.iter().map(|&off| f64::from(off)).sum::<f64>() / off.len() as f64;
        let most = off.iter().max().unwrap();
        // Pillow rounds after each of its two passes, across first; fast_image_resize goes down first.
        assert!(mean <= 0.5 && *most <= 2, "{name}: off by {mean:.3} on average, by {most} at most");
        compared += 1;
    }
    assert_eq!(compared, 7);
}
