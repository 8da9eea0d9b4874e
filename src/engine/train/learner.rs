//! A network that learns: gradients of a batch, and the update.

use super::split::{Part, Split};
use crate::data::Normalise;
use crate::data::augment::mix::Mix;
use crate::data::loader::Batch;
use crate::dist::collective::{Collective, Gradients};
use crate::engine::mixing;
use crate::engine::setup::Setup;
use crate::error::{Result, TorchContext, failed, is_out_of_memory, torch_message};
use crate::experiment::TrainSpec;
use crate::net::build::{Mode, NamedTensor, Net, overwrite};
use crate::net::loss::Target;
use crate::net::params::Role;
use crate::net::precision::Precision;
use crate::optim::{Ema, LossScaler, Optimizer};
use crate::torch_ext::dist::ReducerOptions;
use crate::torch_ext::optim::{gradients_are_finite, scale_gradients};
use tch::{Device, Kind, TchError, Tensor};

/// A network that learns.
pub struct Learner {
    /// The network.
    pub net: Net,
    /// Its optimizer.
    pub optimizer: Optimizer,
    /// Its moving average.
    pub ema: Option<Ema>,
    /// What lifts the gradients of float16 into its range.
    pub scaler: Option<LossScaler>,
    pub(in crate::engine) normalise: Normalise,
    recipe: TrainSpec,
    /// What reduces its gradients, where it is one of several.
    gradients: Gradients,
}

impl Learner {
    /// At its first, random values.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(setup: &Setup) -> Result<Self> {
        let recipe = setup.experiment.train.clone();
        recipe.precision.prepare()?;
        let build = || Net::build(&setup.node, setup.experiment.seed, setup.device);
        let net = build()?;
        let optimizer = Optimizer::new(&setup.experiment.optim, net.trainable())
            .torch_context(|| "cannot prepare the optimizer".to_string())?;
        let ema = recipe.ema.as_ref().map(|spec| Ema::new(spec, build()?, &net)).transpose()?;
        let scaler = (recipe.precision == Precision::Fp16).then(LossScaler::default);
        let (normalise, gradients) = (setup.normalise(), Gradients::default());
        Ok(Self { net, optimizer, ema, scaler, normalise, recipe, gradients })
    }

    /// The same, but for its network, which computes with libtorch's own operators alone.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn plain(setup: &Setup) -> Result<Self> {
        let mut learner = Self::new(setup)?;
        learner.net.compute_plainly();
        Ok(learner)
    }

    /// Makes it one of the ranks of `collective`, which reduce their gradients. They begin at the same values: these are
    /// functions of names and seed.
    ///
    /// # Errors
    /// When a rank is lost, or has another network.
    pub fn join(&mut self, collective: &Collective) -> Result<()> {
        let named = |named: &NamedTensor| (named.param.name.clone(), named.tensor.shallow_clone());
        let params: Vec<_> = self.net.trainable().map(named).collect();
        self.gradients = collective.gradients(&params, ReducerOptions::default())?;
        if self.recipe.sync_bn {
            self.net.compute_with(collective.peers()?);
        }
        Ok(())
    }

    /// Gives all ranks the weights, statistics and memories of rank 0.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn take_main_values(&self, collective: &Collective) -> Result<()> {
        let nets = [Some(&self.net), self.ema.as_ref().map(|ema| &ema.net)];
        let weights = nets.into_iter().flatten().flat_map(Net::tensors);
        let memories = self.optimizer.state().into_iter().map(|(_, tensor)| tensor);
        let tensors: Vec<Tensor> =
            weights.map(|named| named.tensor.shallow_clone()).chain(memories).collect();
        collective.broadcast(&tensors)
    }

    /// Gives all ranks the mean of their statistics of batch normalisation, which differ unless batches are normalised
    /// together.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn average_statistics(&self, collective: &Collective) -> Result<()> {
        if self.recipe.sync_bn {
            return Ok(());
        }
        let nets = [Some(&self.net), self.ema.as_ref().map(|ema| &ema.net)];
        let statistics: Vec<Tensor> =
            nets.into_iter().flatten().flat_map(statistic_tensors).map(Tensor::shallow_clone).collect();
        collective.all_reduce_mean(&statistics)
    }

    /// Adds `share` of the gradient of the mean loss of `batch`, mixed by `mix`, to what is there; with `reduce`, what is
    /// there then becomes its mean over all ranks. Returns logits and loss, float32, still on the device.
    ///
    /// # Errors
    /// When libtorch refuses, for example for want of memory, or a rank is lost.
    pub fn gradients(
        &mut self,
        batch: &Batch,
        mix: Option<&Mix>,
        mode: Mode,
        share: f64,
        reduce: bool,
        split: &mut Split,
    ) -> Result<(Tensor, Tensor)> {
        if reduce {
            self.gradients.begin()?;
        }
        let mut forward = || -> Result<(Tensor, Tensor, Tensor), TchError> {
            let (images, target) = self.prepare(batch, mix)?;
            split.lap(Part::Data);
            let logits = self.logits(&images, mode)?;
            let loss = self.recipe.loss.of(&logits, &target, self.recipe.label_smoothing)?;
            let part = match share * self.scaler.as_ref().map_or(1.0, LossScaler::scale) {
                1.0 => loss.shallow_clone(),
                factor => loss.f_mul_scalar(factor)?,
            };
            split.lap(Part::Forward);
            Ok((logits, loss, part))
        };
        let refused = |error: TchError| self.gradients.explain(self.refused(batch.len, &error));
        let (logits, loss, part) = forward().map_err(refused)?;
        if reduce {
            self.gradients.turn(&part)?;
        }
        part.f_backward().map_err(|error| self.gradients.explain(self.refused(batch.len, &error)))?;
        split.lap(Part::Backward);
        Ok((logits, loss))
    }

    /// Images and labels as the network and the loss take them.
    fn prepare(&self, batch: &Batch, mix: Option<&Mix>) -> Result<(Tensor, Target), TchError> {
        let images = self.normalise.apply(&batch.pixels)?;
        match mix {
            None => Ok((images, Target::plain(&batch.labels))),
            Some(mix) => Ok((mixing::images(mix, &images)?, mixing::target(mix, &batch.labels)?)),
        }
    }

    fn logits(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let autocast = self.recipe.precision.enter(self.net.device())?;
        let logits = self.net.forward(images, mode)?;
        drop(autocast);
        logits.f_to_kind(Kind::Float)
    }

    /// Changes the weights by the gradients, at learning rate `lr`, and the average by the weights. In this order: the
    /// gradients are divided by the loss scaler's factor, clipped, and applied; the scaler takes note.
    ///
    /// With `checked`, or a loss scaler, gradients are looked at first: where one is not finite, nothing is changed but the
    /// scaler, the gradients stay for whoever wants to look at them, and false comes back.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn update(&mut self, lr: f64, checked: bool, split: &mut Split) -> Result<bool> {
        let params = self.optimizer.params();
        let finite = match &mut self.scaler {
            Some(scaler) => {
                let finite = scale_gradients(&params, scaler.scale().recip())?;
                scaler.update(finite);
                finite
            }
            None => !checked || gradients_are_finite(&params)?,
        };
        split.lap(Part::Rest);
        if !finite {
            return Ok(false);
        }
        if let Some(clip) = &self.recipe.clip {
            clip.apply(&params)?;
        }
        self.optimizer.step(lr)?;
        self.ema.iter().try_for_each(|ema| ema.follow(self.optimizer.steps()))?;
        split.lap(Part::Optimizer);
        Ok(true)
    }

    /// The first layer whose output of `batch` is not finite, if any is.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn first_not_finite(&self, batch: &Batch, mix: Option<&Mix>, mode: Mode) -> Result<Option<String>> {
        let look = || -> Result<Option<String>, TchError> {
            let (images, _) = self.prepare(batch, mix)?;
            let _autocast = self.recipe.precision.enter(self.net.device())?;
            self.net.first_not_finite(&images, mode)
        };
        look().torch_context(|| "cannot look at the layers' outputs".to_string())
    }

    /// The parameter nearest to the logits whose gradient is not finite, if any is.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn gradient_not_finite(&self) -> Result<Option<String>> {
        let params: Vec<_> = self.net.trainable().collect();
        for named in params.into_iter().rev() {
            if !gradients_are_finite(&[named.tensor.shallow_clone()])? {
                return Ok(Some(named.param.name.clone()));
            }
        }
        Ok(None)
    }

    /// Returns the name of the first weight or statistic that is NaN or infinite, of the network or of its moving average.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn weight_not_finite(&self) -> Result<Option<String>> {
        let first_of = |net: &Net| -> Result<Option<String>, TchError> {
            let flags: Result<Vec<Tensor>, TchError> =
                net.tensors().iter().map(|named| named.tensor.f_isfinite()?.f_all()).collect();
            // sync: once a checkpoint.
            let flags = Vec::<bool>::try_from(Tensor::f_stack(&flags?, 0)?.f_to_device(Device::Cpu)?)?;
            let first = net.tensors().iter().zip(flags).find(|(_, finite)| !finite);
            Ok(first.map(|(named, _)| format!("`{}`", named.param.name)))
        };
        let first = || -> Result<Option<String>, TchError> {
            if let Some(name) = first_of(&self.net)? {
                return Ok(Some(name));
            }
            let average = self.ema.as_ref().map(|ema| first_of(&ema.net)).transpose()?.flatten();
            Ok(average.map(|name| format!("{name} of the moving average")))
        };
        first().torch_context(|| "cannot check the weights".to_string())
    }

    /// Copies of the statistics of batch normalisation.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn statistics(&self) -> Result<Vec<Tensor>> {
        let copies: Result<Vec<Tensor>, TchError> = statistic_tensors(&self.net)
            .map(|tensor| {
                let mut copy = tensor.f_empty_like()?;
                copy.f_copy_(tensor)?;
                Ok(copy)
            })
            .collect();
        copies.torch_context(|| "cannot copy the statistics of batch normalisation".to_string())
    }

    /// Puts copies back.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn restore_statistics(&self, copies: &[Tensor]) -> Result<()> {
        let mut pairs = statistic_tensors(&self.net).zip(copies);
        pairs
            .try_for_each(|(tensor, copy)| overwrite(tensor, copy))
            .torch_context(|| "cannot restore the statistics of batch normalisation".to_string())
    }

    /// What libtorch's refusal of a step of `images` means to the user.
    fn refused(&self, images: usize, error: &TchError) -> anyhow::Error {
        let problem =
            failed(format!("cannot compute a training step of {images} images: {}", torch_message(error)));
        if is_out_of_memory(error) {
            problem.hint(self.recipe.in_less_memory()).into()
        } else {
            problem.into()
        }
    }
}

/// The running means and variances of a network.
fn statistic_tensors(net: &Net) -> impl Iterator<Item = &Tensor> {
    let tensors = net.tensors().iter();
    tensors.filter(|named| named.param.role == Role::Statistic).map(|named| &named.tensor)
}
