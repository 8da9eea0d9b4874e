//! A comparison, expanded into its rows: an ablation is data.

use super::Experiment;
use crate::error::{Result, usage};
use crate::models;

/// One row of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What the table calls it, such as `r = 16`; also its folder, with dashes.
    pub label: String,
    /// What is trained.
    pub experiment: Experiment,
}

impl Row {
    /// The name of the row's folder: `r-16`.
    pub fn folder(&self) -> String {
        let dashed = self.label.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    }
}

/// Several rows under one recipe, data and seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// What is compared, such as `reduction ratio`.
    pub title: String,
    /// The rows, in order.
    pub rows: Vec<Row>,
}

/// The paper's Table 10: `base` at each reduction ratio, and without SE.
///
/// # Errors
/// When there is no ratio, one is below 1 or comes twice, or the base network has no SE to vary.
pub fn ratios(base: &Experiment, ratios: &[i64]) -> Result<Sweep> {
    let (_, has_se) = models::find(&base.model.name)?;
    if !has_se {
        let name = &base.model.name;
        let hint = format!("use `model.name` = `se-{name}`; the row without SE is added by itself");
        return Err(usage(format!("`{name}` has no SE blocks whose ratio could vary")).hint(hint).into());
    }
    if ratios.is_empty() {
        return Err(usage("`--ratios` is empty").hint("for example `--ratios 4,8,16,32`").into());
    }
    let mut rows: Vec<Row> = Vec::new();
    for &ratio in ratios {
        if ratio < 1 {
            let message = format!("`--ratios` holds {ratio}, but a reduction ratio is at least 1");
            return Err(usage(message).hint("the paper's are 2, 4, 8, 16 and 32").into());
        }
        let mut experiment = base.clone();
        experiment.model.se.reduction = ratio;
        let label = format!("r = {ratio}");
        if rows.iter().any(|row| row.label == label) {
            return Err(usage(format!("`--ratios` holds {ratio} twice")).into());
        }
        rows.push(Row { label, experiment });
    }
    let control = Experiment { model: base.model.without_se(), ..base.clone() };
    rows.push(Row { label: "no SE".to_string(), experiment: control });
    Ok(Sweep { title: "reduction ratio".to_string(), rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_differ_in_their_ratio_alone() {
        let sweep = ratios(&Experiment::default(), &[4, 16]).unwrap();
        let labels: Vec<_> = sweep.rows.iter().map(|row| (row.label.as_str(), row.folder())).collect();
        assert_eq!(labels, [("r = 4", "r-4".into()), ("r = 16", "r-16".into()), ("no SE", "no-SE".into())]);
        assert_eq!(sweep.rows[0].experiment.model.se.reduction, 4);
        assert_eq!(sweep.rows[2].experiment.model.name, "resnet-20");
        assert_eq!(sweep.rows[1].experiment.optim, sweep.rows[2].experiment.optim);
    }

    #[test]
    fn impossible_ratios_are_refused() {
        let message = |list: &[i64]| ratios(&Experiment::default(), list).unwrap_err().to_string();
        assert!(message(&[4, 0]).contains("holds 0"));
        assert!(message(&[4, 4]).contains("4 twice"));
        assert!(message(&[]).contains("empty"));
    }
}
