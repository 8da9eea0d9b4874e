//! Several processes that train one network: each computes the gradients of its share of a batch, and all take the
//! same step. c10d, which ships with libtorch, does the work; [`crate::torch_ext::dist`] binds it.
//!
//! * [`launch`]: which rank of how many this process is, by the variables of whoever started it; [`hosts`] reads
//!   SLURM's lists;
//! * [`spawn`]: starting the processes on this machine ourselves;
//! * [`store`]: the key-value store of a job, with values that only its processes can write;
//! * `roll_call`: how they meet, and whether they fit together;
//! * [`collective`]: operations of all ranks together, and the reduction of gradients;
//! * [`watch`]: who is to blame when one of them fails.

pub mod collective;
pub mod hosts;
pub mod launch;
mod roll_call;
pub mod spawn;
pub mod store;
pub mod watch;
