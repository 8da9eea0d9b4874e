//! Odd and damaged JPEGs beside Pillow (`scripts/golden_jpegs.py`): what it refuses is refused, what it accepts has its
//! pixels.

use senet::data::augment::crop::Window;
use senet::data::decode::decode;
use senet::data::sample::Workbench;
use senet::rng::fnv1a;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Width, height and the hash of the pixels.
type Decoded = (usize, usize, String);

/// Each file with its name and what Pillow decodes it to, or nothing where it refuses it.
fn cases() -> Vec<(String, Vec<u8>, Option<Decoded>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/jpegs");
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let case = |(name, value): (&String, &Value)| {
        let side = |at: usize| value[at].as_u64().unwrap() as usize;
        let accepted = (!value.is_null()).then(|| (side(0), side(1), value[2].as_str().unwrap().to_string()));
        (name.clone(), fs::read(folder.join(format!("{name}.jpg"))).unwrap(), accepted)
    };
    let cases: Vec<_> = expected.as_object().unwrap().iter().map(case).collect();
    assert!(cases.len() > 100);
    cases
}

#[test]
fn pillow_and_we_accept_the_same_jpegs_with_the_same_pixels() {
    let mut differences = Vec::new();
    for (name, bytes, expected) in cases() {
        let found = decode(&bytes);
        let as_pillow = found
            .as_ref()
            .ok()
            .map(|image| (image.width, image.height, format!("{:016x}", fnv1a(&image.pixels))));
        if as_pillow != expected {
            let found = found.map(|image| {
                image.pixels.iter().map(|v| f64::from(*v)).sum::<f64>() / image.pixels.len() as f64
            });
            differences.push(format!("{name}: {found:?}, Pillow {expected:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_sample_is_refused_where_the_whole_image_is() {
    let mut bench = Workbench::new();
    let mut sample = vec![0; 8 * 8 * 3];
    let top = |_, _| Window { x: 0.0, y: 0.0, width: 8.0, height: 8.0, closed: true };
    for (name, bytes, expected) in cases() {
        let taken = bench.sample(&bytes, 8, top, &mut sample).is_ok();
        assert_eq!(taken, expected.is_some(), "{name}");
    }
}
