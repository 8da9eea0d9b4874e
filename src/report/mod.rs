//! What happened, as values: events while a run goes on, tables and plots when it has ended.
//!
//! A comparison's [`Results`](comparison::Results) become text, Markdown and CSV in [`comparison`]; what gates do
//! becomes CSV in [`excitation`]. Both become a document in [`page`], whose drawings are in [`plot`]. What an evaluation
//! found class by class and image by image becomes CSV in [`evaluation`].

pub mod comparison;
mod csv;
pub mod document;
pub mod evaluation;
pub mod event;
pub mod excitation;
pub mod page;
pub mod plot;
pub mod runs;
pub mod table;
pub mod tensorboard;
