//! The stages of the loader, each by itself, on a made-up photograph of ImageNet's usual size.
//!
//! `cargo bench --bench loading`
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};
use senet::data::augment::crop::{centre_window, random_window};
use senet::data::augment::frame::Frame;
use senet::data::augment::{Augment, flip};
use senet::data::sample::Workbench;
use senet::data::{Normalise, decode};
use senet::rng;
use senet::torch_ext::host::HostBytes;
use std::hint::black_box;
use tch::{Device, Kind, Tensor};

const WIDTH: usize = 500;
const HEIGHT: usize = 375;
const SIZE: usize = 224;
const BATCH: i64 = 64;

/// Soft shapes with some grain, as a JPEG of about a hundred kilobytes.
fn photograph() -> Vec<u8> {
    let wave = |x: u32, y: u32, rate: f64| ((f64::from(x) - 0.7 * f64::from(y)) * rate).sin();
    let image = RgbImage::from_fn(WIDTH as u32, HEIGHT as u32, |x, y| {
        let grain = f64::from((x.wrapping_mul(374_761_393) ^ y.wrapping_mul(668_265_263)) >> 16 & 31);
        let value = |rate| (110.0 + 60.0 * wave(x, y, rate) + 20.0 * wave(y, x, 9.0 * rate) + grain) as u8;
        image::Rgb([value(0.02), value(0.05), value(0.013)])
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode(&image, WIDTH as u32, HEIGHT as u32, ExtendedColorType::Rgb8)
        .expect("a JPEG of an image in memory");
    bytes
}

fn stages(criterion: &mut Criterion) {
    let bytes = photograph();
    let image = decode::decode(&bytes).expect("it was just encoded");
    let mut bench = Workbench::new();
    let mut out = vec![0; SIZE * SIZE * 3];
    let mut random = rng::stream(0, "bench", [0, 0]);

    let mut one = criterion.benchmark_group("image");
    one.throughput(Throughput::Elements(1));
    one.bench_function("decode whole", |bencher| bencher.iter(|| decode::decode(black_box(&bytes))));
    one.bench_function("resize random crop", |bencher| {
        bencher.iter(|| {
            let window = random_window(WIDTH, HEIGHT, [0.08, 1.0], &mut random);
            bench.resample(black_box(&image), window, SIZE, &mut out)
        });
    });
    let train = |width, height, random: &mut _| random_window(width, height, [0.08, 1.0], random);
    for (name, mut bench) in [("full", Workbench::new()), ("scaled", Workbench::reduced())] {
        one.bench_function(format!("decode and resize random crop, {name}"), |bencher| {
            bencher.iter(|| bench.sample(&bytes, SIZE, |w, h| train(w, h, &mut random), &mut out));
        });
    }
    one.bench_function("decode and resize centre crop", |bencher| {
        bencher.iter(|| bench.sample(&bytes, SIZE, |w, h| centre_window(w, h, 256, SIZE), &mut out));
    });
    one.bench_function("flip", |bencher| bencher.iter(|| flip::mirror(&mut out, SIZE, 3)));
    for kind in ["rand-augment", "trivial-augment-wide", "auto-augment", "lighting", "erase"] {
        let augment: Augment =
            serde_json::from_str(&format!(r#"[{{"kind": "{kind}"}}]"#)).expect("a kind of augmentation");
        one.bench_function(kind, |bencher| {
            bencher.iter(|| {
                augment.apply(&mut Frame::new(SIZE, SIZE, 3, &mut out), &[124, 116, 104], &mut random);
            });
        });
    }
    one.finish();

    let mut many = criterion.benchmark_group("batch of 64");
    many.throughput(Throughput::Elements(BATCH as u64));
    let shape = [BATCH, SIZE as i64, SIZE as i64, 3];
    many.bench_function("collate", |bencher| {
        bencher.iter_batched(
            || (),
            |()| HostBytes::zeros(black_box(&shape), Device::Cpu),
            BatchSize::PerIteration,
        );
    });
    let pixels = Tensor::zeros(shape, (Kind::Uint8, Device::Cpu));
    let normalise = Normalise::new(&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225], Device::Cpu);
    many.bench_function("normalise", |bencher| bencher.iter(|| normalise.apply(black_box(&pixels))));
    many.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
