//! Who started this process, beside which others: read from the variables that launchers leave in the environment.
//! A function of those variables; nothing is contacted.
//!
//! | launcher | variables |
//! |---|---|
//! | `senet … --nproc N`, torchrun, or by hand | RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT |
//! | Open MPI's mpirun | OMPI_COMM_WORLD_RANK, …_SIZE, …_LOCAL_RANK |
//! | MPICH's, Intel's, Cray's mpiexec | PMI_RANK, PMI_SIZE; MPI_LOCALRANKID or PMI_LOCAL_RANK or PALS_LOCAL_RANKID |
//! | srun | SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID, SLURM_STEP_NODELIST |
//!
//! The first that applies is taken: torchrun and mpirun work within allocations of SLURM and know better. MASTER_ADDR
//! and MASTER_PORT, where they are set, say for all of them where the processes meet, and SENET_JOB_TOKEN what others do not
//! know.

use super::hosts;
use super::store::{TOKEN, Token};
use crate::error::{Result, usage};
use std::collections::BTreeMap;
use std::fmt;

/// The variables of an environment.
pub type Environment = BTreeMap<String, String>;

/// More processes than any job has: what says so is garbage.
pub const MOST_PROCESSES: usize = 65_536;

/// Set by our own launcher beside torchrun's variables; [`super::spawn`].
pub const SPAWNED: &str = "SENET_SPAWNED";

/// Where processes meet when nobody says a port: torchrun's.
const PORT: u16 = 29_500;

/// The steps of a SLURM job that are no srun: the batch script, an interactive shell and the like have the highest
/// numbers.
const LAST_REAL_STEP: u64 = 0xffff_fff0;

/// Who starts processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `--nproc` of this program.
    Senet,
    /// torchrun, or whoever sets its variables.
    Torchrun,
    /// Open MPI's mpirun.
    OpenMpi,
    /// Another MPI's mpiexec.
    Pmi,
    /// SLURM's srun.
    Slurm,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Senet => "senet --nproc",
            Self::Torchrun => "torchrun",
            Self::OpenMpi => "mpirun (Open MPI)",
            Self::Pmi => "mpiexec (PMI)",
            Self::Slurm => "srun",
        })
    }
}

/// Where the processes of a job find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Name or address of the machine.
    pub host: String,
    /// Port there.
    pub port: u16,
    /// Whether the launcher keeps the store there; else rank 0 does.
    pub kept_by_launcher: bool,
    /// What the job's processes know and others do not, where the environment gives it.
    pub token: Option<Token>,
}

/// This process among those of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Number of this process among those of its machine, where the launcher says it.
    pub local_rank: Option<usize>,
    /// Who started it.
    pub launcher: Launcher,
    /// Where the others are met.
    pub meeting: Meeting,
    /// Whether GLOO_SOCKET_IFNAME says over which network interfaces.
    pub interfaces_named: bool,
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.world_size)?;
        if let Some(local_rank) = self.local_rank {
            write!(f, ", local rank {local_rank}")?;
        }
        write!(f, ", from {}", self.launcher)
    }
}

/// The launch that the environment tells of, or nothing where this is a process by itself.
///
/// # Errors
/// When variables lack, hold no numbers, or contradict each other; they are named.
pub fn find(environment: &Environment) -> Result<Option<Launch>> {
    let variables = Variables(environment);
    let mut launch = if variables.has("RANK") {
        torchrun(variables)?
    } else if variables.has("OMPI_COMM_WORLD_RANK") || variables.has("OMPI_COMM_WORLD_SIZE") {
        open_mpi(variables)?
    } else {
        match (pmi(variables)?, slurm(variables)?) {
            // srun sets PMI's variables, too, if it is told to. Where they differ, srun has started the helper of an
            // mpiexec on each machine, and that this process.
            (Some(pmi), Some(slurm)) if (pmi.rank, pmi.world_size) != (slurm.rank, slurm.world_size) => pmi,
            (_, Some(slurm)) => slurm,
            (Some(pmi), None) => pmi,
            (None, None) => return variables.nothing_but_world_size(),
        }
    };
    launch.meeting.token = variables.get(TOKEN).map(Token::given);
    launch.interfaces_named = variables.has("GLOO_SOCKET_IFNAME");
    launch.check(variables)?;
    Ok(Some(launch))
}

/// A word to people whose allocation has several tasks while this process is by itself: a login shell within, or a
/// batch script that forgot `srun`. It is no error, and nobody is waited for.
pub fn forgotten_srun(environment: &Environment) -> Option<String> {
    let variables = Variables(environment);
    let tasks: usize = variables.get("SLURM_NTASKS")?.parse().ok()?;
    (tasks > 1 && !in_slurm_step(variables)).then(|| {
        format!("the SLURM allocation has {tasks} tasks, but this process is by itself: `srun senet …` starts them all")
    })
}

/// torchrun's variables, all of which have to be there. `LOCAL_RANK` may lack: people who set them by hand forget it,
/// and without GPUs nobody asks.
fn torchrun(variables: Variables) -> Result<Launch> {
    let launcher = if variables.has(SPAWNED) { Launcher::Senet } else { Launcher::Torchrun };
    let host = variables.required("MASTER_ADDR", "RANK")?.to_owned();
    variables.required("MASTER_PORT", "RANK")?;
    Ok(Launch {
        rank: variables.required_number("RANK", "RANK")?,
        world_size: variables.required_number("WORLD_SIZE", "RANK")?,
        local_rank: variables.number("LOCAL_RANK")?,
        launcher,
        meeting: Meeting {
            host,
            port: variables.port(PORT)?,
            kept_by_launcher: variables.get("TORCHELASTIC_USE_AGENT_STORE") == Some("True"),
            token: None,
        },
        interfaces_named: false,
    })
}

fn open_mpi(variables: Variables) -> Result<Launch> {
    let (rank, size) = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
    let world_size = variables.required_number(size, rank)?;
    let on_one_machine = variables.number("OMPI_COMM_WORLD_LOCAL_SIZE")? == Some(world_size);
    Ok(Launch {
        rank: variables.required_number(rank, size)?,
        world_size,
        local_rank: variables.number("OMPI_COMM_WORLD_LOCAL_RANK")?,
        launcher: Launcher::OpenMpi,
        meeting: mpi_meeting(variables, on_one_machine || world_size == 1, "mpirun -x MASTER_ADDR=HOST …")?,
        interfaces_named: false,
    })
}

fn pmi(variables: Variables) -> Result<Option<Launch>> {
    if !variables.has("PMI_RANK") && !variables.has("PMI_SIZE") {
        return Ok(None);
    }
    let world_size = variables.required_number("PMI_SIZE", "PMI_RANK")?;
    let mut local_rank = None;
    for name in ["MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID"] {
        local_rank = local_rank.or(variables.number(name)?);
    }
    let on_one_machine = variables.number("MPI_LOCALNRANKS")?.or(variables.number("PMI_LOCAL_SIZE")?);
    let on_one_machine = world_size == 1 || on_one_machine == Some(world_size);
    Ok(Some(Launch {
        rank: variables.required_number("PMI_RANK", "PMI_SIZE")?,
        world_size,
        local_rank,
        launcher: Launcher::Pmi,
        meeting: mpi_meeting(variables, on_one_machine, "MASTER_ADDR=HOST mpiexec …")?,
        interfaces_named: false,
    }))
}

/// MPI's launchers say nothing of rank 0's machine.
fn mpi_meeting(variables: Variables, on_one_machine: bool, example: &str) -> Result<Meeting> {
    let host = match variables.get("MASTER_ADDR") {
        Some(host) => host.to_owned(),
        None if on_one_machine => LOOPBACK.to_owned(),
        None => match variables.first_slurm_host()? {
            Some(host) => host,
            None => {
                let message = "MASTER_ADDR is not set: MPI's launchers do not say on which machine rank 0 is";
                return Err(usage(message).hint(example).into());
            }
        },
    };
    Ok(Meeting { host, port: variables.port(PORT)?, kept_by_launcher: false, token: None })
}

/// A task of an srun; nothing in a batch script or login shell.
fn slurm(variables: Variables) -> Result<Option<Launch>> {
    if !in_slurm_step(variables) {
        return Ok(None);
    }
    let tasks = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"].into_iter().find(|name| variables.has(name));
    let world_size = variables.required_number(tasks.unwrap_or("SLURM_NTASKS"), "SLURM_PROCID")?;
    let host = match variables.get("MASTER_ADDR") {
        Some(host) => host.to_owned(),
        None if world_size == 1 => LOOPBACK.to_owned(),
        None => variables.first_slurm_host()?.ok_or_else(|| {
            usage("SLURM_STEP_NODELIST is not set, although SLURM_PROCID is")
                .hint("set MASTER_ADDR to the machine of task 0")
        })?,
    };
    // Two jobs on a machine, and two steps of a job, should not choose the same port.
    let job = variables.number::<u64>("SLURM_JOB_ID")?.unwrap_or(0);
    let step = variables.number::<u64>("SLURM_STEP_ID")?.unwrap_or(0);
    let port = 10_000 + (job.wrapping_mul(7).wrapping_add(step) % 20_000) as u16;
    Ok(Some(Launch {
        rank: variables.required_number("SLURM_PROCID", "SLURM_STEP_ID")?,
        world_size,
        local_rank: variables.number("SLURM_LOCALID")?,
        launcher: Launcher::Slurm,
        meeting: Meeting { host, port: variables.port(port)?, kept_by_launcher: false, token: None },
        interfaces_named: false,
    }))
}

/// Whether srun has started this process. Within an allocation, shells and batch scripts have some of its variables
/// (`SLURM_NTASKS`, even `SLURM_PROCID`), and would wait for others that nobody has started.
fn in_slurm_step(variables: Variables) -> bool {
    let step = variables.get("SLURM_STEP_ID").and_then(|step| step.parse::<u64>().ok());
    variables.has("SLURM_PROCID") && step.is_some_and(|step| step < LAST_REAL_STEP)
}

const LOOPBACK: &str = "127.0.0.1";

impl Launch {
    fn check(&self, variables: Variables) -> Result<()> {
        let Self { rank, world_size, local_rank, launcher, .. } = self;
        if *world_size == 0 || *world_size > MOST_PROCESSES {
            let message = format!("{launcher} says that there are {world_size} processes");
            return Err(usage(message).hint(format!("1 to {MOST_PROCESSES} can work together")).into());
        }
        if rank >= world_size {
            let message = format!("{launcher} says that this is rank {rank} of {world_size}");
            return Err(usage(message).hint("ranks count from 0; look at RANK and WORLD_SIZE").into());
        }
        let on_this_machine = variables.number("LOCAL_WORLD_SIZE")?.unwrap_or(*world_size);
        if let Some(local_rank) = local_rank
            && *local_rank >= on_this_machine.min(*world_size)
        {
            let message = format!(
                "{launcher} says that this is local rank {local_rank}, but there are {on_this_machine} processes here"
            );
            return Err(usage(message).hint("local ranks count from 0; look at LOCAL_RANK").into());
        }
        match variables.number::<usize>("WORLD_SIZE")? {
            Some(said) if said != *world_size => {
                let message =
                    format!("WORLD_SIZE is {said}, but {launcher} has started {world_size} processes");
                Err(usage(message).hint("unset WORLD_SIZE, or start as many processes").into())
            }
            _ => Ok(()),
        }
    }
}

/// Reads variables; an empty one counts as not set.
#[derive(Clone, Copy)]
struct Variables<'a>(&'a Environment);

impl<'a> Variables<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn number<T: std::str::FromStr>(self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // A sign would parse.
        let number = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten();
        if number.is_none() {
            let message = format!("{name} is `{}`, but a number is expected", value.escape_debug());
            return Err(usage(message).hint(format!("unset {name}, or start senet with a launcher")).into());
        }
        Ok(number)
    }

    /// A variable that has to be there because `another` is.
    fn required(self, name: &str, another: &str) -> Result<&'a str> {
        self.get(name).ok_or_else(|| {
            let message = format!("{another} is set, but {name} is not");
            usage(message).hint(format!("set {name}, or unset {another} for a process by itself")).into()
        })
    }

    fn required_number(self, name: &str, another: &str) -> Result<usize> {
        self.required(name, another)?;
        Ok(self.number(name)?.unwrap_or_default())
    }

    fn port(self, otherwise: u16) -> Result<u16> {
        match self.number::<u64>("MASTER_PORT")? {
            None => Ok(otherwise),
            Some(port) => u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
                usage(format!("MASTER_PORT is {port}, but a port is expected")).hint("1 to 65535").into()
            }),
        }
    }

    /// The machine of task 0; this one, where a job has but one.
    fn first_slurm_host(self) -> Result<Option<String>> {
        let lists = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"];
        let Some(name) = lists.into_iter().find(|name| self.has(name)) else { return Ok(None) };
        let list = self.get(name).unwrap_or_default();
        let hosts = hosts::expand(list).map_err(|reason| {
            let shown: String = list.escape_debug().take(200).collect();
            usage(format!("{name} is `{shown}`: {reason}")).hint("set MASTER_ADDR to the machine of task 0")
        })?;
        Ok(if let [_] = hosts.as_slice() { Some(LOOPBACK.to_owned()) } else { hosts.into_iter().next() })
    }

    /// No launcher is known; a WORLD_SIZE of more than 1 speaks of one all the same.
    fn nothing_but_world_size(self) -> Result<Option<Launch>> {
        match self.number::<usize>("WORLD_SIZE")? {
            Some(size) if size > 1 => {
                let message = format!("WORLD_SIZE is {size}, but RANK is not set");
                Err(usage(message).hint("set RANK, or unset WORLD_SIZE for a process by itself").into())
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, problem};

    fn environment(variables: &str) -> Environment {
        let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn found(variables: &str) -> Launch {
        find(&environment(variables)).unwrap().unwrap_or_else(|| panic!("nothing found in {variables}"))
    }

    const TORCHRUN: &str =
        "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a1 MASTER_PORT=29400";
    const SRUN: &str = "SLURM_JOB_ID=4711 SLURM_STEP_ID=0 SLURM_PROCID=5 SLURM_LOCALID=1 SLURM_NTASKS=8 \
                        SLURM_STEP_NUM_TASKS=8 SLURM_STEP_NODELIST=n[07-08] SLURM_JOB_NODELIST=n[05-08]";

    #[test]
    fn torchrun_is_recognised_with_its_store() {
        let launch = found(TORCHRUN);
        assert_eq!(launch.to_string(), "rank 3 of 8, local rank 1, from torchrun");
        let meeting = Meeting { host: "a1".into(), port: 29_400, kept_by_launcher: false, token: None };
        assert_eq!(launch.meeting, meeting);
        let launch = found(&format!("{TORCHRUN} TORCHELASTIC_USE_AGENT_STORE=True"));
        assert!(launch.meeting.kept_by_launcher && !launch.interfaces_named);
        assert!(found(&format!("{TORCHRUN} GLOO_SOCKET_IFNAME=eth0")).interfaces_named);
        assert_eq!(found(&format!("{TORCHRUN} {SPAWNED}=1")).launcher, Launcher::Senet);
        let with_token = found(&format!("{TORCHRUN} {TOKEN}=secret"));
        assert_eq!(with_token.meeting.token, Some(Token::given("secret")));
    }

    #[test]
    fn srun_is_recognised_and_the_step_counts_before_the_job() {
        let launch = found(SRUN);
        assert_eq!(launch.to_string(), "rank 5 of 8, local rank 1, from srun");
        assert_eq!((launch.meeting.host.as_str(), launch.meeting.port), ("n07", 10_000 + 4711 * 7 % 20_000));
        assert_ne!(found(&SRUN.replace("STEP_ID=0", "STEP_ID=1")).meeting.port, launch.meeting.port);
        let half = found(&SRUN.replace("NUM_TASKS=8", "NUM_TASKS=6"));
        assert_eq!(half.world_size, 6);
        let said = found(&format!("{SRUN} MASTER_ADDR=other MASTER_PORT=1234"));
        assert_eq!((said.meeting.host.as_str(), said.meeting.port), ("other", 1234));
        let one_machine = found(&SRUN.replace("n[07-08]", "n07"));
        assert_eq!(one_machine.meeting.host, "127.0.0.1");
    }

    #[test]
    fn a_shell_in_an_allocation_is_a_process_by_itself() {
        for variables in [
            "SLURM_JOB_ID=1 SLURM_NTASKS=8 SLURM_JOB_NODELIST=n[1-2]",
            // A batch script has a rank, and no step or one of the highest numbers; so does an interactive shell.
            "SLURM_JOB_ID=1 SLURM_NTASKS=8 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=n[1-2]",
            "SLURM_JOB_ID=1 SLURM_NTASKS=8 SLURM_PROCID=0 SLURM_STEP_ID=4294967291",
            "SLURM_JOB_ID=1 SLURM_NTASKS=8 SLURM_PROCID=0 SLURM_STEP_ID=4294967290",
        ] {
            let environment = environment(variables);
            assert_eq!(find(&environment).unwrap(), None, "{variables}");
            assert!(forgotten_srun(&environment).unwrap().contains("8 tasks"));
        }
        assert_eq!(forgotten_srun(&environment(SRUN)), None);
        assert_eq!(forgotten_srun(&environment("SLURM_NTASKS=1")), None);
        assert_eq!(forgotten_srun(&environment("PATH=/bin")), None);
    }

    #[test]
    fn mpi_launchers_are_recognised() {
        let ompi = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1";
        let launch = found(&format!("{ompi} OMPI_COMM_WORLD_LOCAL_SIZE=4"));
        assert_eq!(launch.to_string(), "rank 1 of 4, local rank 1, from mpirun (Open MPI)");
        assert_eq!((launch.meeting.host.as_str(), launch.meeting.port), ("127.0.0.1", 29_500));
        let error = find(&environment(&format!("{ompi} OMPI_COMM_WORLD_LOCAL_SIZE=2"))).unwrap_err();
        assert!(error.to_string().contains("MASTER_ADDR"));
        let within_slurm = format!("{ompi} OMPI_COMM_WORLD_LOCAL_SIZE=2 SLURM_JOB_NODELIST=n[3-4]");
        assert_eq!(found(&within_slurm).meeting.host, "n3");

        let pmi = "PMI_RANK=2 PMI_SIZE=4 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2 MASTER_ADDR=b";
        assert_eq!(found(pmi).to_string(), "rank 2 of 4, local rank 0, from mpiexec (PMI)");
    }

    #[test]
    fn of_nested_launchers_the_inner_one_counts() {
        assert_eq!(found(&format!("{SRUN} {TORCHRUN}")).launcher, Launcher::Torchrun);
        let ompi = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_SIZE=4";
        assert_eq!(found(&format!("{SRUN} {ompi}")).launcher, Launcher::OpenMpi);
        // mpiexec that starts its helpers by srun, and srun that offers PMI.
        assert_eq!(found(&format!("{SRUN} PMI_RANK=17 PMI_SIZE=32")).launcher, Launcher::Pmi);
        assert_eq!(found(&format!("{SRUN} PMI_RANK=5 PMI_SIZE=8")).launcher, Launcher::Slurm);
    }

    #[test]
    fn nothing_is_found_where_nothing_is_said() {
        for variables in ["", "PATH=/bin", "WORLD_SIZE=1", "RANK= WORLD_SIZE=", "LOCAL_RANK=0 MASTER_ADDR=a"]
        {
            assert_eq!(find(&environment(variables)).unwrap(), None, "{variables}");
        }
    }

    #[test]
    fn what_lacks_or_contradicts_is_named() {
        let without = |name: &str| {
            let kept = TORCHRUN.split(' ').filter(|pair| !pair.starts_with(name));
            kept.collect::<Vec<_>>().join(" ")
        };
        for (variables, named) in [
            (without("WORLD_SIZE"), "WORLD_SIZE"),
            (without("MASTER_ADDR"), "MASTER_ADDR"),
            (without("MASTER_PORT"), "MASTER_PORT"),
            ("WORLD_SIZE=4".to_owned(), "RANK"),
            (TORCHRUN.replace("RANK=3", "RANK=three"), "RANK is `three`"),
            (TORCHRUN.replace("RANK=3", "RANK=-1"), "RANK is `-1`"),
            (TORCHRUN.replace("RANK=3", "RANK=8"), "rank 8 of 8"),
            (TORCHRUN.replace("LD_SIZE=8", "LD_SIZE=0"), "0 processes"),
            (TORCHRUN.replace("LD_SIZE=8", "LD_SIZE=99999999999999999999999"), "WORLD_SIZE is"),
            (TORCHRUN.replace("LD_SIZE=8", "LD_SIZE=1000000"), "1000000 processes"),
            (TORCHRUN.replace("LOCAL_RANK=1", "LOCAL_RANK=2"), "local rank 2"),
            (TORCHRUN.replace("29400", "0"), "MASTER_PORT"),
            (TORCHRUN.replace("29400", "65536"), "MASTER_PORT"),
            (TORCHRUN.replace("29400", "29400x"), "MASTER_PORT"),
            ("OMPI_COMM_WORLD_RANK=0".to_owned(), "OMPI_COMM_WORLD_SIZE"),
            ("PMI_SIZE=2".to_owned(), "PMI_RANK"),
            (format!("{SRUN} WORLD_SIZE=4"), "WORLD_SIZE is 4"),
            (SRUN.replace("n[07-08]", "n[07-"), "SLURM_STEP_NODELIST"),
            (SRUN.replace("PROCID=5", "PROCID=x"), "SLURM_PROCID"),
        ] {
            let error = find(&environment(&variables)).unwrap_err();
            assert!(error.to_string().contains(named), "{variables}: {error}");
            let problem = problem(&error).unwrap();
            assert!(problem.kind == Kind::Usage && problem.hint.is_some(), "{variables}");
        }
    }
}
