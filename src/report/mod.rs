//! What happened, as values: events while a run goes on, tables when it has ended.

pub mod comparison;
pub mod event;
pub mod table;
