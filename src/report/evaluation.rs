//! An evaluation in detail, as tables for a spreadsheet or a data frame: each class, each pair of classes, each image.
//! Accuracies and probabilities are fractions of 1; a cell is empty where there is no figure.

use super::csv::quoted;
use crate::metrics::by_class::{Confusion, PerClass};
use crate::metrics::guesses::Guess;
use std::io::{self, Write};

/// The columns of [`write_per_class`].
pub const PER_CLASS_HEADING: &str = "class,index,seen,top1_correct,top1,top5_correct,top5,precision";

/// What the columns of [`write_prediction`] begin with.
pub const PREDICTIONS_HEADING: &str = "image,label,predicted,correct,probability,label_probability";

/// A line for each class.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_per_class(out: &mut impl Write, classes: &[String], per_class: &PerClass) -> io::Result<()> {
    writeln!(out, "{PER_CLASS_HEADING}")?;
    let cell = |figure: Option<f64>| figure.map_or_else(String::new, |figure| figure.to_string());
    for (index, (class, counts)) in classes.iter().zip(per_class.counts()).enumerate() {
        let (seen, top1, top5) = (counts.seen, counts.top1, counts.top5);
        let [top1_share, top5_share, precision] =
            [counts.top1_accuracy(), counts.top5_accuracy(), counts.precision()].map(cell);
        let class = quoted(class);
        writeln!(out, "{class},{index},{seen},{top1},{top1_share},{top5},{top5_share},{precision}")?;
    }
    Ok(())
}

/// The columns of [`write_confusion`].
pub fn confusion_heading(classes: &[String]) -> String {
    let names: Vec<_> = classes.iter().map(|class| quoted(class)).collect();
    format!("label,{}", names.join(","))
}

/// The confusion matrix: a line for each class of images, a column for each predicted class.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_confusion(out: &mut impl Write, classes: &[String], confusion: &Confusion) -> io::Result<()> {
    writeln!(out, "{}", confusion_heading(classes))?;
    for (label, name) in classes.iter().enumerate() {
        write!(out, "{}", quoted(name))?;
        for predicted in 0..classes.len() {
            write!(out, ",{}", confusion.of(label, predicted))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The columns of [`write_prediction`].
///
/// # Errors
/// When `out` cannot be written.
pub fn write_prediction_heading(out: &mut impl Write, guesses: usize) -> io::Result<()> {
    write!(out, "{PREDICTIONS_HEADING}")?;
    for place in 1..=guesses {
        write!(out, ",class{place},probability{place}")?;
    }
    writeln!(out)
}

/// What the network makes of one image. Probabilities have the digits of float32.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_prediction(
    out: &mut impl Write,
    image: &str,
    classes: &[String],
    guess: &Guess<'_>,
) -> io::Result<()> {
    let name = |class: usize| quoted(&classes[class]);
    write!(out, "{},{},{},{}", quoted(image), name(guess.label), name(guess.predicted()), guess.is_right())?;
    write!(out, ",{},{}", guess.probabilities[0] as f32, guess.of_label as f32)?;
    for (class, probability) in guess.classes.iter().zip(guess.probabilities) {
        write!(out, ",{},{}", name(*class as usize), *probability as f32)?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBABILITIES: [f64; 2] = [0.75, 0.25];

    fn guess(label: usize, classes: &[i64]) -> Guess<'_> {
        let of_label = if classes[0] == label as i64 { 0.75 } else { 0.25 };
        Guess { label, classes, probabilities: &PROBABILITIES, of_label }
    }

    #[test]
    fn tables_have_a_line_for_each_class() {
        let classes = ["tench, Tinca", "pug", "fox"].map(str::to_string);
        let (mut per_class, mut confusion) = (PerClass::new(3), Confusion::default());
        for guess in [guess(0, &[0, 1]), guess(0, &[1, 0]), guess(1, &[1, 2]), guess(1, &[2, 0])] {
            per_class.add(&guess);
            confusion.add(&guess);
        }
        let mut table = Vec::new();
        write_per_class(&mut table, &classes, &per_class).unwrap();
        let lines = [
            "class,index,seen,top1_correct,top1,top5_correct,top5,precision",
            "\"tench, Tinca\",0,2,1,0.5,2,1,1",
            "pug,1,2,1,0.5,1,0.5,0.5",
            "fox,2,0,0,,0,,0",
        ];
        assert_eq!(String::from_utf8(table).unwrap(), lines.join("\n") + "\n");

        let mut matrix = Vec::new();
        write_confusion(&mut matrix, &classes, &confusion).unwrap();
        let lines = ["label,\"tench, Tinca\",pug,fox", "\"tench, Tinca\",1,1,0", "pug,0,1,1", "fox,0,0,0"];
        assert_eq!(String::from_utf8(matrix).unwrap(), lines.join("\n") + "\n");
    }

    #[test]
    fn a_prediction_is_a_line() {
        let classes = ["tench, Tinca", "pug"].map(str::to_string);
        let mut text = Vec::new();
        write_prediction_heading(&mut text, 2).unwrap();
        write_prediction(&mut text, "val/a,b.jpg", &classes, &guess(1, &[0, 1])).unwrap();
        let lines = [
            "image,label,predicted,correct,probability,label_probability,class1,probability1,class2,probability2",
            "\"val/a,b.jpg\",pug,\"tench, Tinca\",false,0.75,0.25,\"tench, Tinca\",0.75,pug,0.25",
        ];
        assert_eq!(String::from_utf8(text).unwrap(), lines.join("\n") + "\n");
    }
}
