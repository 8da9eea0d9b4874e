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
    reason_in_words(&error.to_string())
}

/// Whether there was not enough memory.
pub fn is_out_of_memory(error: &tch::TchError) -> bool {
    means_out_of_memory(&error.to_string())
}

/// What to do where memory runs out.
pub const LESS_MEMORY: &str =
    "lower the batch size, use smaller images, fewer threads (`data.threads`) or a smaller network";

/// The first line of a message of C++, which says so where memory ran out.
pub fn reason_in_words(message: &str) -> String {
    let first = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("libtorch gave no reason");
    let first = first.trim().trim_start_matches("Internal torch error: ");
    match first {
        _ if first.contains("bad_alloc") => format!("out of memory ({first})"),
        // oneDNN does not say why, and it is hardly ever anything else.
        _ if ONE_DNN.iter().any(|part| first.contains(part)) => format!("probably out of memory ({first})"),
        _ => first.to_string(),
    }
}

/// What oneDNN says where it gets no memory.
const ONE_DNN: [&str; 2] = ["could not create a primitive", "could not create a memory"];

/// Whether a message, libtorch's, CUDA's, oneDNN's or C++'s, means that there was not enough memory.
pub fn means_out_of_memory(message: &str) -> bool {
    let parts = ["out of memory", "can't allocate memory", "bad_alloc", "Cannot allocate memory"];
    parts.iter().chain(&ONE_DNN).any(|part| message.contains(part))
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
            if is_out_of_memory(&error) { problem.hint(LESS_MEMORY).into() } else { problem.into() }
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
    fn memory_that_runs_out_is_said_with_a_hint() {
        for (reason, told) in [
            ("could not create a primitive", "probably out of memory (could not create a primitive)"),
            ("std::bad_alloc", "out of memory (std::bad_alloc)"),
            ("CUDA out of memory. Tried\nframe #0: x", "CUDA out of memory. Tried"),
        ] {
            let refused = Err::<(), _>(tch::TchError::Torch(reason.to_string()));
            let error = refused.torch_context(|| "cannot compute".to_string()).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot compute: {told}"));
            assert_eq!(problem(&error).unwrap().hint.as_deref(), Some(LESS_MEMORY));
        }
        let refused = Err::<(), _>(tch::TchError::Torch("shapes differ".to_string()));
        let error = refused.torch_context(|| "cannot compute".to_string()).unwrap_err();
        assert!(problem(&error).unwrap().hint.is_none());
    }

    #[test]
    fn slips_of_the_hand_are_recognised_and_strangers_are_not() {
        let keys = ["reduction", "bias", "placement"];
        assert_eq!(nearest("reductoin", keys), Some("reduction"));
        assert_eq!(nearest("colour", keys), None);
    }
}
