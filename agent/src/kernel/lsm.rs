//! BPF LSM programs: loaded and attached where the kernel has them. What a family is worth is one coverage line, named after the
//! hook that its ladder begins with: all of its programs, or none.

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Btf,
    programs::{Lsm, ProgramError},
};
use engine::output::CoverageState;

use super::{Kernel, hooks::short};

/// Programs that deny something together, and their hooks.
struct Group {
    coverage: &'static str,
    programs: &'static [(&'static str, &'static str)],
}

const GROUPS: [Group; 8] = [
    Group { coverage: "lsm/bprm_check_security", programs: &[("lsm_bprm_check", "bprm_check_security")] },
    Group {
        coverage: "lsm/file_open",
        programs: &[
            ("lsm_file_open", "file_open"),
            ("lsm_unlink", "path_unlink"),
            ("lsm_rmdir", "path_rmdir"),
            ("lsm_mknod", "path_mknod"),
            ("lsm_mkdir", "path_mkdir"),
            ("lsm_symlink", "path_symlink"),
            ("lsm_link", "path_link"),
            ("lsm_rename", "path_rename"),
            ("lsm_truncate", "path_truncate"),
            ("lsm_chmod", "path_chmod"),
            ("lsm_chown", "path_chown"),
        ],
    },
    Group {
        coverage: "lsm/unix_stream_connect",
        programs: &[("lsm_unix_connect", "unix_stream_connect"), ("lsm_unix_send", "unix_may_send")],
    },
    Group {
        coverage: "lsm/ptrace_access_check",
        programs: &[
            ("lsm_ptrace", "ptrace_access_check"),
            ("lsm_traceme", "ptrace_traceme"),
            ("lsm_mount", "sb_mount"),
            ("lsm_move_mount", "move_mount"),
            ("lsm_umount", "sb_umount"),
            ("lsm_pivot_root", "sb_pivotroot"),
            ("lsm_bpf", "bpf"),
        ],
    },
    // Beside those of the family above: they guard the agent's own files, whatever is denied to a server.
    Group {
        coverage: "lsm/sb_mount",
        programs: &[
            ("lsm_keep_mount", "sb_mount"),
            ("lsm_keep_move", "move_mount"),
            ("lsm_keep_umount", "sb_umount"),
            ("lsm_keep_root", "sb_pivotroot"),
        ],
    },
    Group { coverage: "lsm/socket_create", programs: &[("lsm_socket", "socket_create")] },
    Group {
        coverage: "lsm/task_kill",
        programs: &[
            ("lsm_kill", "task_kill"),
            ("lsm_sigio", "file_send_sigiotask"),
            ("lsm_rlimit", "task_setrlimit"),
            ("lsm_scheduler", "task_setscheduler"),
            ("lsm_nice", "task_setnice"),
            ("lsm_ioprio", "task_setioprio"),
        ],
    },
    Group { coverage: "lsm/bpf_map", programs: &[("lsm_bpf_map", "bpf_map"), ("lsm_bpf_prog", "bpf_prog")] },
];

/// All programs: each denies without the agent, too.
pub(super) fn programs() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|group| group.programs).map(|(program, _)| *program)
}

/// Where a program is attached, if it is one of these.
pub(super) fn hook(program: &str) -> Option<&'static str> {
    GROUPS.iter().flat_map(|g| g.programs).find(|(name, _)| *name == program).map(|(_, hook)| *hook)
}

/// Fields without which these programs would not know what they look at.
const REQUIRED: [&str; 16] = [
    "dentry_inode",
    "mount_ns",
    "unix_path",
    "unix_addr",
    "sb_magic",
    "cred_euid",
    "cred_caps",
    "cred_user_ns",
    "user_ns_level",
    "mnt_ns_inum",
    "proc_pid",
    "proc_inode",
    "pid_tasks",
    "bpf_map_id",
    "bpf_prog_aux",
    "bpf_aux_id",
];

/// Why a program is not at work.
enum Lacking {
    /// This kernel has no BPF LSM, or lets nobody use it: the doctor tells why, and what to do.
    Lsm,
    /// It has, and does not take the program.
    Program(String),
}

/// What a verifier says at the end, before its figures.
fn verdict(log: &str) -> &str {
    let figures =
        |l: &&str| ["verification time", "stack depth", "processed"].iter().any(|f| l.starts_with(f));
    let mut said = log.lines().rev().map(str::trim).filter(|l| !l.is_empty() && !figures(l));
    said.next().unwrap_or("it does not say why")
}

impl From<ProgramError> for Lacking {
    fn from(e: ProgramError) -> Self {
        match &e {
            // No such hook: built without CONFIG_BPF_LSM.
            ProgramError::Btf(_) => Self::Lsm,
            ProgramError::LoadError { io_error, verifier_log: _ }
                if io_error.raw_os_error() == Some(libc::EPERM) =>
            {
                Self::Lsm
            }
            ProgramError::LoadError { io_error, verifier_log } => Self::Program(format!(
                "the kernel takes no such program: {} ({io_error})",
                verdict(&verifier_log.to_string())
            )),
            _ => Self::Program(short(&e)),
        }
    }
}

impl Kernel {
    /// Loads and attaches what this kernel can do of it. A kernel without BPF LSM gets no coverage lines: acts are then seen, not
    /// denied, as the lines of other hooks say.
    pub(super) fn attach_lsm(&mut self, absent: &[&str]) -> Result<()> {
        let btf = Btf::from_sys_fs().context("the kernel's types cannot be read")?;
        let missing: Vec<&str> = REQUIRED.into_iter().filter(|f| absent.contains(f)).collect();
        for group in &GROUPS {
            let done = if missing.is_empty() {
                group.programs.iter().try_for_each(|(name, hook)| self.attach_one(name, hook, &btf))
            } else {
                Err(Lacking::Program(format!("this kernel's BTF lacks {missing:?}")))
            };
            match done {
                Ok(()) => self.cover(group.coverage, CoverageState::Enforcing, None),
                Err(Lacking::Lsm) => return Ok(()),
                Err(Lacking::Program(why)) => {
                    self.drop_group(group)?;
                    self.cover(group.coverage, CoverageState::Blind, Some(why));
                }
            }
        }
        Ok(())
    }

    fn lsm(&mut self, name: &str) -> Result<&mut Lsm, Lacking> {
        let program = self.ebpf.program_mut(name);
        let program = program.ok_or_else(|| Lacking::Program(format!("the BPF object has no {name}")))?;
        program.try_into().map_err(Lacking::from)
    }

    fn attach_one(&mut self, name: &str, hook: &str, btf: &Btf) -> Result<(), Lacking> {
        let program = self.lsm(name)?;
        program.load(hook, btf)?;
        program.attach()?;
        Ok(())
    }

    /// Attaches a program that others detached.
    pub(super) fn attach_lsm_again(&mut self, name: &str, hook: &str) -> Result<()> {
        let btf = Btf::from_sys_fs().context("the kernel's types cannot be read")?;
        let loaded = self.lsm(name).map_err(|_lacking| anyhow!("the BPF object has no {name}"))?;
        // Unloading drops the dead link's descriptor, too.
        loaded.unload()?;
        loaded.load(hook, &btf)?;
        loaded.attach()?;
        Ok(())
    }

    /// A part of a family denies nothing that cannot be done another way.
    fn drop_group(&mut self, group: &Group) -> Result<()> {
        for (name, _) in group.programs {
            let loaded = self.lsm(name).map_err(|_lacking| anyhow!("the BPF object has no {name}"))?;
            if loaded.fd().is_ok() {
                loaded.unload().with_context(|| format!("cannot unload {name}"))?;
            }
        }
        Ok(())
    }
}
