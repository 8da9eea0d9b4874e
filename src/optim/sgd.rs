//! Stochastic gradient descent with momentum, its state ours to save.

use crate::error::{Result, usage};
use crate::net::build::{Net, overwrite};
use crate::net::params::Role;
use crate::torch_ext::{SgdUpdate, drop_gradients, fused_sgd_step};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Parameters that weight decay can leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayExemption {
    /// Gamma and beta of batch normalisation.
    Norm,
    /// Biases of convolutions and of the classifier.
    Bias,
    /// Biases of the SE blocks' FCs.
    ExcitationBias,
}

/// v ← momentum · v + g + decay · p;  p ← p - lr · v, or by Nesterov's p ← p - lr · (g + decay · p + momentum · v).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdSpec {
    /// Learning rate at the peak of the schedule.
    pub lr: f64,
    /// Share of the velocity that is kept.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// L2 penalty.
    pub weight_decay: f64,
    /// What the penalty leaves alone.
    pub no_decay: Vec<DecayExemption>,
}

impl Default for SgdSpec {
    fn default() -> Self {
        Self { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5e-4, no_decay: Vec::new() }
    }
}

impl SgdSpec {
    /// Refuses numbers that no training survives.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("lr", self.lr, self.lr > 0.0 && self.lr.is_finite(), "more than 0"),
            ("momentum", self.momentum, (0.0..1.0).contains(&self.momentum), "from 0 to less than 1"),
            (
                "weight_decay",
                self.weight_decay,
                self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
                "0 or more",
            ),
        ];
        for (key, value, fits, range) in ranges {
            if !fits {
                return Err(usage(format!("`optim.{key}` is {value}, but it must be {range}")).into());
            }
        }
        if self.nesterov && self.momentum == 0.0 {
            let message = "`optim.nesterov` needs momentum, but `optim.momentum` is 0";
            return Err(usage(message).hint("set `optim.nesterov` to false for plain SGD").into());
        }
        Ok(())
    }

    fn decays(&self, role: Role) -> bool {
        !self.no_decay.iter().any(|exempt| {
            matches!(
                (exempt, role),
                (DecayExemption::Norm, Role::Norm)
                    | (DecayExemption::Bias, Role::Bias)
                    | (DecayExemption::ExcitationBias, Role::ExcitationBias)
            )
        })
    }
}

/// Parameters of one weight decay, with their velocities.
#[derive(Debug)]
struct Group {
    weight_decay: f64,
    names: Vec<String>,
    params: Vec<Tensor>,
    velocities: Vec<Tensor>,
}

/// The optimizer of one network.
#[derive(Debug)]
pub struct Sgd {
    spec: SgdSpec,
    groups: Vec<Group>,
    /// Whether the velocities hold no history yet.
    first: bool,
}

impl Sgd {
    /// An optimizer at rest.
    pub fn new(spec: &SgdSpec, net: &Net) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for named in net.trainable() {
            let weight_decay = if spec.decays(named.param.role) { spec.weight_decay } else { 0.0 };
            let at =
                groups.iter().position(|group| group.weight_decay == weight_decay).unwrap_or_else(|| {
                    groups.push(Group { weight_decay, names: vec![], params: vec![], velocities: vec![] });
                    groups.len() - 1
                });
            groups[at].names.push(named.param.name.clone());
            groups[at].params.push(named.tensor.shallow_clone());
            groups[at].velocities.push(named.tensor.zeros_like().set_requires_grad(false));
        }
        Self { spec: spec.clone(), groups, first: true }
    }

    /// Applies the gradients at learning rate `lr`, and forgets them.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        let SgdSpec { momentum, nesterov, .. } = self.spec;
        for group in &self.groups {
            let update =
                SgdUpdate { lr, momentum, weight_decay: group.weight_decay, nesterov, first: self.first };
            fused_sgd_step(&group.params, &group.velocities, update)?;
            drop_gradients(&group.params)?;
        }
        self.first = false;
        Ok(())
    }

    /// What must be saved to go on: each parameter's velocity, by the parameter's name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |group: &Group| -> Vec<(String, Tensor)> {
            let velocities = group.velocities.iter().map(Tensor::shallow_clone);
            group.names.iter().cloned().zip(velocities).collect()
        };
        self.groups.iter().flat_map(named).collect()
    }

    /// Goes on from saved velocities, handed out by `take(name, shape)`.
    ///
    /// # Errors
    /// When a velocity is missing or has another shape.
    pub fn restore(&mut self, mut take: impl FnMut(&str, &[i64]) -> Result<Tensor>) -> Result<()> {
        for group in &self.groups {
            for (name, velocity) in group.names.iter().zip(&group.velocities) {
                overwrite(velocity, &take(name, &velocity.size())?)?;
            }
        }
        self.first = false;
        Ok(())
    }
}
