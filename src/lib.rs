//! senet: train, evaluate and take apart Squeeze-and-Excitation networks on libtorch.
//!
//! The modules, in the order in which data flows through them:
//!
//! * [`cli`]: the words that users type, and everything that is printed;
//! * [`experiment`]: one run described, from JSON and flags;
//! * [`data`]: from files to batches;
//! * [`net`] and [`models`]: networks as values, what they cost, and how they compute;
//! * [`weights`]: files of weights, ours and others', into networks and out;
//! * [`optim`]: optimizers and the learning rate over time;
//! * [`dist`]: several processes that train one network;
//! * [`engine`]: training, evaluation, comparison, measurement;
//! * [`run`] and [`report`]: what is kept of a run, and what is told;
//! * [`torch_ext`], [`metrics`], [`duration`], [`process`], [`rng`], [`files`], [`escaped`], [`tagged`], [`error`]: the ground.
//!
//! Read first: [`experiment`], `models/resnet.rs`, [`net::se`], [`engine::train`].

pub mod cli;
pub mod data;
pub mod dist;
pub mod duration;
pub mod engine;
pub mod error;
pub mod escaped;
pub mod experiment;
pub mod files;
pub mod metrics;
pub mod models;
pub mod net;
pub mod optim;
pub mod printable;
pub mod process;
pub mod report;
pub mod rng;
pub mod run;
pub mod tagged;
pub mod torch_ext;
pub mod weights;
