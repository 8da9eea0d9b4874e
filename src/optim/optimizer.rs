//! The optimizer of one network, its state ours to save.

use super::spec::{OptimSpec, Rule};
use crate::error::Result;
use crate::net::build::{NamedTensor, overwrite};
use crate::torch_ext::optim::{
    AdamKind, AdamUpdate, RmsPropUpdate, SgdUpdate, adam_step, clip_gradient_norm, drop_gradients,
    rmsprop_tf_step, sgd_step,
};
use tch::{TchError, Tensor};

/// Parameters of one weight decay, with what the rule remembers of them.
#[derive(Debug)]
struct Group {
    weight_decay: f64,
    names: Vec<String>,
    params: Vec<Tensor>,
    /// For each memory of the rule, a tensor for each parameter.
    memories: Vec<Vec<Tensor>>,
}

/// What a rule remembers of each parameter: a tensor of the parameter's shape.
struct Memory {
    /// Its name in a file comes behind the parameter's; a velocity has the parameter's own.
    name: Option<&'static str>,
    /// What all its values are in the beginning.
    start: f64,
}

const VELOCITY: Memory = Memory { name: None, start: 0.0 };
const MEAN: Memory = Memory { name: Some("exp_avg"), start: 0.0 };
const MEAN_SQUARE: Memory = Memory { name: Some("exp_avg_sq"), start: 0.0 };
/// TensorFlow's RMSProp begins with ones, so that its first steps are no larger than the gradient.
const SQUARE_FROM_ONE: Memory = Memory { name: Some("square_avg"), start: 1.0 };
const LAST_STEP: Memory = Memory { name: Some("momentum_buffer"), start: 0.0 };

impl Rule {
    fn memories(&self) -> &'static [Memory] {
        match self {
            Rule::Sgd { .. } => &[VELOCITY],
            Rule::AdamW { .. } | Rule::Lamb { .. } => &[MEAN, MEAN_SQUARE],
            Rule::RmspropTf { momentum: 0.0, .. } => &[SQUARE_FROM_ONE],
            Rule::RmspropTf { .. } => &[SQUARE_FROM_ONE, LAST_STEP],
        }
    }
}

impl Memory {
    fn of(&self, param: &str) -> String {
        self.name.map_or(param.to_string(), |name| format!("{param}.{name}"))
    }
}

/// The optimizer of one network.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    groups: Vec<Group>,
    /// Updates so far.
    steps: u64,
}

impl Optimizer {
    /// An optimizer of `params` at rest.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new<'a>(
        spec: &OptimSpec,
        params: impl IntoIterator<Item = &'a NamedTensor>,
    ) -> Result<Self, TchError> {
        let memories = spec.rule.memories();
        let mut groups: Vec<Group> = Vec::new();
        for named in params {
            let weight_decay = spec.decay_of(named.param.role);
            let at =
                groups.iter().position(|group| group.weight_decay == weight_decay).unwrap_or_else(|| {
                    let memories = memories.iter().map(|_| Vec::new()).collect();
                    groups.push(Group { weight_decay, names: vec![], params: vec![], memories });
                    groups.len() - 1
                });
            let group = &mut groups[at];
            group.names.push(named.param.name.clone());
            group.params.push(named.tensor.shallow_clone());
            for (memory, tensors) in memories.iter().zip(&mut group.memories) {
                tensors.push(named.tensor.detach().f_full_like(memory.start)?);
            }
        }
        Ok(Self { rule: spec.rule.clone(), groups, steps: 0 })
    }

    /// Applies the gradients at learning rate `lr`, and forgets them.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        if let Rule::Lamb { clip: Some(most), .. } = self.rule {
            clip_gradient_norm(&self.params(), most, 0.0)?;
        }
        self.steps += 1;
        for group in &self.groups {
            group.step(&self.rule, lr, self.steps)?;
            drop_gradients(&group.params)?;
        }
        Ok(())
    }

    /// Forgets the gradients without a step.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn drop_gradients(&self) -> Result<()> {
        self.groups.iter().try_for_each(|group| drop_gradients(&group.params))
    }

    /// All parameters.
    pub fn params(&self) -> Vec<Tensor> {
        self.groups.iter().flat_map(|group| group.params.iter().map(Tensor::shallow_clone)).collect()
    }

    /// The rule's name, as `optim.kind` has it.
    pub fn kind(&self) -> &'static str {
        self.rule.name()
    }

    /// Updates so far; with [`Optimizer::state`], all that must be saved to go on.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on after so many updates, with the memories that there are.
    pub fn goes_on_after(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// The rule's memory, in float32, by names: a velocity by its parameter's, `conv1.weight`; another as
    /// `conv1.weight.exp_avg`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        self.each_memory(|name, tensor| {
            state.push((name, tensor.shallow_clone()));
            Ok(())
        })
        .expect("nothing can fail");
        state
    }

    /// Goes on after `steps` updates, with memories handed out by `take(name, shape)`.
    ///
    /// # Errors
    /// When a memory is missing or has another shape.
    pub fn restore(
        &mut self,
        steps: u64,
        mut take: impl FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<()> {
        self.each_memory(|name, tensor| Ok(overwrite(tensor, &take(&name, &tensor.size())?)?))?;
        self.steps = steps;
        Ok(())
    }

    fn each_memory(&self, mut visit: impl FnMut(String, &Tensor) -> Result<()>) -> Result<()> {
        for group in &self.groups {
            for (memory, tensors) in self.rule.memories().iter().zip(&group.memories) {
                for (param, tensor) in group.names.iter().zip(tensors) {
                    visit(memory.of(param), tensor)?;
                }
            }
        }
        Ok(())
    }
}

impl Group {
    /// The update number `step`, from 1.
    fn step(&self, rule: &Rule, lr: f64, step: u64) -> Result<()> {
        let Self { weight_decay, params, memories, .. } = self;
        let weight_decay = *weight_decay;
        match *rule {
            Rule::Sgd { momentum, nesterov } => {
                let update = SgdUpdate { lr, momentum, weight_decay, nesterov, first: step == 1 };
                sgd_step(params, &memories[0], update)
            }
            Rule::AdamW { betas, eps } => {
                let update = AdamUpdate { lr, betas, epsilon: eps, weight_decay, step };
                adam_step(AdamKind::AdamW, params, &memories[0], &memories[1], update)
            }
            Rule::Lamb { betas, eps, .. } => {
                let update = AdamUpdate { lr, betas, epsilon: eps, weight_decay, step };
                adam_step(AdamKind::Lamb, params, &memories[0], &memories[1], update)
            }
            Rule::RmspropTf { alpha, momentum, eps } => {
                let update = RmsPropUpdate { lr, alpha, momentum, epsilon: eps, weight_decay };
                rmsprop_tf_step(params, &memories[0], memories.get(1).map(Vec::as_slice), update)
            }
        }
    }
}
