//! Every program loads and attaches on this kernel; what a kernel cannot give is said, with the reason.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::{agent::Agent, sys};
use engine::output::{Coverage, CoverageState, Line};

/// Hooks that some kernels cannot give, and how the reason begins.
const MAY_LACK: [(&str, &str); 2] = [
    ("io_uring", "no tracepoint at submission"),
    // 5.10: arguments that are structures. The whole family is told then, not denied.
    ("lsm/file_open", "the kernel takes no such program: The function bpf_lsm_path_chown arg1"),
];

/// What the agent says about its hooks.
pub(crate) fn coverage(agent: &Agent) -> Result<Vec<Coverage>> {
    let lines = agent.lines()?.into_iter();
    Ok(lines
        .filter_map(|p| match p.line {
            Line::Coverage(line) => Some(line.coverage),
            _ => None,
        })
        .collect())
}

#[test]
fn hooks() -> Result<()> {
    // BPF_PROG_GET_NEXT_ID
    let loaded = || sys::bpf_ids(11).into_iter().collect::<BTreeSet<u32>>();
    let before = loaded();
    let agent = Agent::start(&[])?;
    let coverage = coverage(&agent)?;
    for hook in &coverage {
        println!("coverage: {} {:?} {}", hook.hook, hook.state, hook.because.as_deref().unwrap_or_default());
        if hook.state == CoverageState::Blind {
            let because = hook.because.as_deref().unwrap_or_default();
            let lacking = MAY_LACK.iter().any(|(name, why)| *name == hook.hook && because.starts_with(why));
            ensure!(lacking, "{hook:?}: every kernel that is supported has this");
        }
    }
    let programs: Vec<_> = loaded().difference(&before).filter_map(|&id| sys::bpf_program(id).ok()).collect();
    ensure!(programs.len() >= 14, "{programs:?}");
    for program in &programs {
        match program.verified {
            Some(count) => println!("insns: {} {count}", program.name),
            // Kernels before 5.16 do not tell; that it loads is worth knowing.
            None => println!("insns: {} 0", program.name),
        }
    }
    Ok(())
}
