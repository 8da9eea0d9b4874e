//! The table of all blocks: how far their gates are open or shut.

use super::super::html_table::{self, Column};
use crate::report::excitation::{BlockGates, Saturation};
use crate::report::plot::escape;
use crate::report::table::grouped;

/// From this many blocks on, only the drawn ones are in sight at first.
const MANY: usize = 40;

/// The columns, without one that no block has.
fn columns(blocks: &[BlockGates]) -> Vec<Column<BlockGates>> {
    const NONE: &str = "";
    const SHARE: &str = "share of gates, %";
    let columns = [
        Column::of(NONE, "parameters", "code", |block: &BlockGates| Some(escape(&block.name))),
        Column::of(NONE, "channels", "", |block| Some(grouped(block.channels() as i64))),
        Column::of(NONE, "mean gate", "", |block| decimal(block.saturation.mean)),
        Column::of(SHARE, "shut, &lt; 0.1", "share", |block| share(block, |of| Some(of.shut))),
        Column::of(SHARE, "open, &gt; 0.9", "share", |block| share(block, |of| Some(of.open))),
        Column::of("variance, %", "between classes", "share", |block| share(block, |of| of.between_classes)),
    ];
    let is_known = |column: &Column<BlockGates>| blocks.iter().any(|block| (column.cell)(block).is_some());
    columns.into_iter().filter(is_known).collect()
}

/// The table of all blocks; of many, first that of the drawn ones.
pub fn table(blocks: &[BlockGates], drawn: &[&BlockGates]) -> String {
    if blocks.is_empty() {
        return "<p class=\"note\">The network has no SE blocks.</p>\n".to_string();
    }
    let columns = columns(blocks);
    let all = rows(blocks.iter(), &columns);
    if blocks.len() < MANY || drawn.is_empty() || drawn.len() == blocks.len() {
        return all;
    }
    format!(
        "<p class=\"note\">Those that are drawn below.</p>\n{}\
         <details>\n<summary>All {} blocks</summary>\n{all}</details>\n",
        rows(drawn.iter().copied(), &columns),
        grouped(blocks.len() as i64)
    )
}

/// A table of some blocks, with a line between stages.
fn rows<'a>(blocks: impl Iterator<Item = &'a BlockGates>, columns: &[Column<BlockGates>]) -> String {
    let mut blocks = blocks.peekable();
    let mut rows = String::new();
    while let Some(block) = blocks.next() {
        let ends_stage = blocks.peek().is_some_and(|next| next.stage != block.stage);
        let class = if ends_stage { "stage-end" } else { "" };
        rows += &html_table::row(class, &escape(&block.label), columns, block);
    }
    html_table::table("block", columns, &rows)
}

fn decimal(figure: f64) -> Option<String> {
    figure.is_finite().then(|| format!("{figure:.3}"))
}

/// A share as a figure and as a bar.
fn share(block: &BlockGates, of: fn(&Saturation) -> Option<f64>) -> Option<String> {
    let percent = of(&block.saturation).map(|share| 100.0 * share).filter(|share| share.is_finite())?;
    let width = percent.clamp(0.0, 100.0);
    Some(format!("{percent:.1}<span class=\"amount\"><span style=\"width:{width:.1}%\"></span></span>"))
}
