//! What a run tells, as TensorBoard reads it: scalars over steps.
//!
//! A file of events is a list of records: length, checksum of the length, bytes, checksum of the bytes; numbers are
//! little-endian, checksums CRC-32C in TensorFlow's masked form. The bytes are a protocol buffer, of whose types
//! (event.proto, summary.proto) the few fields that scalars need are here.

use super::event::{Evaluation, Event};
use prost::Message;

/// `Event`. Of the last three, which the original has as one of several kinds, one is there.
#[derive(Message)]
struct Entry {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `Summary.Value`.
#[derive(Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// What a file begins with; readers of this version look at [`SESSION_START`].
const FILE_VERSION: &str = "brain.Event:2";

/// `SessionLog.START`: what was told of this step and later ones counts no more.
const SESSION_START: i32 = 1;

/// The record that a file begins with. `wall_time` is in seconds since 1970, here and below.
pub fn version(wall_time: f64) -> Vec<u8> {
    record(&Entry { wall_time, file_version: Some(FILE_VERSION.to_string()), ..Entry::default() })
}

/// The record of a run that goes on after `step`: whatever was told of later steps counts no more.
pub fn goes_on_after(step: u64, wall_time: f64) -> Vec<u8> {
    let session_log = Some(SessionLog { status: SESSION_START });
    record(&Entry { wall_time, step: step as i64 + 1, session_log, ..Entry::default() })
}

/// The record of an event that has scalars.
pub fn scalars(event: &Event, wall_time: f64) -> Option<Vec<u8>> {
    let (step, scalars) = scalars_of(event)?;
    let value = scalars.into_iter().map(|(tag, value)| Scalar { tag, simple_value: Some(value as f32) });
    let summary = Some(Summary { value: value.collect() });
    Some(record(&Entry { wall_time, step: step as i64, summary, ..Entry::default() }))
}

/// Step and named numbers; accuracies are fractions of 1.
fn scalars_of(event: &Event) -> Option<(u64, Vec<(String, f64)>)> {
    match event {
        Event::Steps { step, loss, lr, images_per_second, waiting, .. } => {
            let scalars = [
                ("loss/train", loss),
                ("lr", lr),
                ("images_per_second", images_per_second),
                ("waiting", waiting),
            ];
            Some((*step, scalars.map(|(tag, value)| (tag.to_string(), *value)).to_vec()))
        }
        Event::Epoch { step, train_top1, eval, ema, .. } => {
            let mut scalars = vec![("top1/train".to_string(), *train_top1)];
            for (whose, evaluation) in [("eval", *eval), ("ema", *ema)] {
                let Some(Evaluation { top1, top5, loss, .. }) = evaluation else { continue };
                let of = [("loss", loss), ("top1", top1.accuracy), ("top5", top5.accuracy)];
                scalars.extend(of.map(|(what, value)| (format!("{what}/{whose}"), value)));
            }
            Some((*step, scalars))
        }
        Event::Started { .. }
        | Event::Interrupted { .. }
        | Event::Warning { .. }
        | Event::Finished { .. } => None,
    }
}

fn record(entry: &Entry) -> Vec<u8> {
    let bytes = entry.encode_to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), &bytes, &checksum(&bytes)].concat()
}

/// CRC-32C, rotated and shifted, so that checksums of what holds checksums are sound.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::event::Accuracy;

    fn evaluation(correct: u64, loss: f64) -> Evaluation {
        let of = |correct: u64| Accuracy { correct, accuracy: correct as f64 / 16.0 };
        Evaluation { seen: 16, skipped: 0, top1: of(correct), top5: of(correct + 4), loss }
    }

    /// The file that TensorBoard's own writer makes of the same (scripts/golden_tensorboard.py).
    #[test]
    fn records_are_tensorboards_byte_for_byte() {
        let golden = include_bytes!("../../tests/golden/events.out.tfevents.golden");
        let steps =
            Event::Steps { epoch: 1, step: 5, loss: 2.5, lr: 0.1, images_per_second: 1234.5, waiting: 0.25 };
        let epoch = Event::Epoch {
            epoch: 1,
            step: 300,
            train_loss: 2.0,
            train_top1: 0.0,
            eval: Some(evaluation(10, 1.75)),
            ema: Some(evaluation(11, 1.5)),
            seconds: 1.0,
            images_per_second: 16.0,
            best: true,
        };
        let made = [
            version(1_700_000_000.25),
            goes_on_after(0, 1_700_000_000.5),
            scalars(&steps, 1_700_000_001.0).unwrap(),
            scalars(&epoch, 1_700_000_002.0).unwrap(),
            goes_on_after(300, 1_700_000_003.0),
        ];
        assert_eq!(made.concat(), golden);
        assert!(scalars(&Event::Interrupted { step: 5 }, 0.0).is_none());
    }
}
