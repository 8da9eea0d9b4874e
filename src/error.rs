//! What goes wrong, said so that it can be put right.
//!
//! Errors travel as [`anyhow::Error`]. One that a user caused starts as a [`Problem`]: a lower-case phrase that
//! names the file or key, what was expected and what came, and a hint of what to do. The command line prints
//! the chain and the hint, and takes the exit code from the problem's [`Kind`].

use std::fmt;

/// The result of everything that can fail.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// Whose mistake a problem is; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrong words on the command line or in a configuration: exit code 2.
    Usage,
    /// The world did not cooperate (files, data, numbers, devices): exit code 1.
    Failed,
}

/// A mistake with a cure.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Whose mistake it is.
    pub kind: Kind,
    /// Lower-case phrase without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A mistake in the command line or the configuration (exit code 2).
pub fn usage(message: impl Into<String>) -> Problem {
    Problem { kind: Kind::Usage, message: message.into(), hint: None }
}

/// Something that failed although it was asked for correctly (exit code 1).
pub fn failed(message: impl Into<String>) -> Problem {
    Problem { kind: Kind::Failed, message: message.into(), hint: None }
}

impl Problem {
    /// Adds what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// The [`Problem`] that an error started as, if it did.
pub fn problem(error: &anyhow::Error) -> Option<&Problem> {
    error.downcast_ref::<Problem>().or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
}

/// The candidate closest to `word`, if one is close enough to be a slip of the hand.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// libtorch's message without the C++ back-trace that it appends.
pub fn torch_message(error: &tch::TchError) -> String {
    let text = error.to_string();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("libtorch gave no reason");
    first.trim().trim_start_matches("Internal torch error: ").to_string()
}

/// Whether there was not enough memory.
pub fn is_out_of_memory(error: &tch::TchError) -> bool {
    let message = torch_message(error);
    message.contains("out of memory") || message.contains("can't allocate memory")
}

/// Turns libtorch's exceptions into errors of one line.
pub trait TorchContext<T> {
    /// Adds what was being done when libtorch refused.
    fn torch_context(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> TorchContext<T> for std::result::Result<T, tch::TchError> {
    fn torch_context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let problem = failed(format!("{}: {}", doing(), torch_message(&error)));
            if is_out_of_memory(&error) {
                problem.hint("lower the batch size, or use a smaller network").into()
            } else {
                problem.into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_problem_is_found_below_added_context() {
        let error =
            Err::<(), _>(usage("ratio 0").hint("use 1 or more")).context("reading x.json").unwrap_err();
        assert_eq!(problem(&error).unwrap().hint.as_deref(), Some("use 1 or more"));
        assert_eq!(format!("{error:#}"), "reading x.json: ratio 0");
    }

    #[test]
    fn slips_of_the_hand_are_recognised_and_strangers_are_not() {
        let keys = ["reduction", "bias", "placement"];
        assert_eq!(nearest("reductoin", keys), Some("reduction"));
        assert_eq!(nearest("colour", keys), None);
    }
}
