//! What a hook is worth, from what was tried and what the canary proved. Pure.

use std::collections::BTreeSet;

use engine::{
    judge::Command,
    output::{Coverage, CoverageState},
    policy::Family,
};

use super::{
    canary::{Act, DEADLINE, Done, Proof},
    hooks::{HOOKS, Hook, LADDERS, LSM, Ladder},
    report::State,
};

/// What is known of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) state: State,
    /// Why it is not better; more to know, if it works.
    pub(crate) because: Option<String>,
    pub(crate) remedy: Option<String>,
}

impl Verdict {
    fn new(state: State, because: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state, because: Some(because.into()), remedy: Some(remedy.into()) }
    }
}

/// Nothing on this host can do it, so there is nothing to see.
fn is_off(act: Act, errno: i32) -> bool {
    match act {
        Act::Connect6 | Act::Sendmsg6 | Act::Bind6 => {
            matches!(errno, libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::ENETUNREACH)
        }
        // kernel.io_uring_disabled, or built without it.
        Act::Uring => matches!(errno, libc::ENOSYS | libc::EPERM),
        _ => false,
    }
}

/// What to do about a program that the kernel did not take.
fn remedy(because: &str) -> String {
    let refused = ["EPERM", "Operation not permitted", "PermissionDenied", "EACCES"];
    if refused.iter().any(|word| because.contains(word)) {
        "give the agent CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (run it as root, outside of a container that \
         forbids bpf()), and see the checks `bpf`, `cap-*` and `lockdown`"
    } else if because.contains("cgroup") {
        "mount the v2 hierarchy: mount -t cgroup2 none /sys/fs/cgroup/unified; see the check `mount-cgroup2`"
    } else {
        "report it with the output of `uname -r` and of `toolwarden doctor --format json`"
    }
    .to_owned()
}

/// What a hook is worth. `attached`: why it is not attached, if so. `dns`: the canary could ask for a name.
pub(crate) fn classify(hook: &Hook, attached: Result<(), &str>, proof: &Proof, dns: bool) -> Verdict {
    if let Err(because) = attached {
        return Verdict::new(State::Blind, format!("it is not attached: {because}"), remedy(because));
    }
    let (mut seen, mut unseen, mut off, mut open) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &act in hook.acts.iter().filter(|act| dns || **act != Act::Dns) {
        match (proof.done.get(&act), proof.seen.contains(&act)) {
            (_, true) => seen.push(act.name()),
            (Some(Done::Yes), false) => unseen.push(act.name()),
            (Some(Done::No { errno, text }), false) if is_off(act, *errno) => {
                off.push(format!("{}: {text}", act.name()));
            }
            (Some(Done::No { text, .. }), false) => open.push(format!("{}: {text}", act.name())),
            (None, false) => {
                let why = proof.broken.as_deref().unwrap_or("the canary did not come to it");
                open.push(format!("{}: {why}", act.name()));
            }
        }
    }
    let silent = |acts: &[&str]| {
        format!(
            "it is attached, but silent: {} was done, and no record came within {DEADLINE:?}",
            acts.join(", ")
        )
    };
    let other = "see what else was loaded: `bpftool prog`, `bpftool cgroup tree`; a security product or a \
                 container runtime may stand before it; then start the agent anew";
    match (seen.is_empty(), unseen.is_empty()) {
        (true, false) => Verdict::new(State::Blind, silent(&unseen), other),
        (false, false) => Verdict::new(State::Degraded, silent(&unseen), other),
        (false, true) if open.is_empty() => Verdict { state: State::Works, because: None, remedy: None },
        (false, true) => Verdict {
            state: State::Works,
            because: Some(format!("not all of it was tried: {}", open.join("; "))),
            remedy: None,
        },
        (true, true) if open.is_empty() && !off.is_empty() => Verdict {
            state: State::Works,
            because: Some(format!(
                "attached; this host does not use it, so there is nothing to see ({})",
                off.join("; ")
            )),
            remedy: None,
        },
        (true, true) => Verdict::new(
            State::Unknown,
            format!("it is attached, but the act that proves it was not done: {}", open.join("; ")),
            "run `toolwarden doctor` as root on the host itself, when it is less busy",
        ),
    }
}

/// Coverage after the canary: a hook that is attached but silent is blind, whatever the attaching said.
pub(crate) fn prove(coverage: &Coverage, proof: &Proof) -> Coverage {
    if coverage.state == CoverageState::Blind {
        return coverage.clone();
    }
    let mut proved = coverage.clone();
    let hooks: Vec<&Hook> = HOOKS.iter().chain(&LSM).filter(|h| h.coverage == coverage.hook).collect();
    for hook in hooks {
        let Verdict { state, because, remedy } = classify(hook, Ok(()), proof, false);
        // What could not be tried is as it was attached: nothing speaks against it.
        if matches!(state, State::Blind | State::Degraded) {
            proved.state = CoverageState::Blind;
            let text = [because, Some(format!("not seen: {}", hook.sees)), remedy];
            proved.because = Some(text.into_iter().flatten().collect::<Vec<_>>().join("; "));
        }
    }
    proved
}

/// Families of rights that can be enforced: those of which every way in is denied by a program, not just seen.
pub(crate) fn deniable<'a>(coverage: impl IntoIterator<Item = &'a Coverage>) -> BTreeSet<Family> {
    let enforcing: BTreeSet<&str> = coverage
        .into_iter()
        .filter(|c| c.state == CoverageState::Enforcing)
        .map(|c| c.hook.as_str())
        .collect();
    LADDERS
        .iter()
        .filter(|ladder| {
            let lsm = format!("lsm/{}", ladder.lsm);
            enforcing.contains(lsm.as_str())
                || ladder.denies && ladder.hooks.iter().all(|hook| enforcing.contains(hook))
        })
        .map(|ladder| ladder.family)
        .collect()
}

/// The same for the engine, with why the others cannot be.
pub(crate) fn enforceable<'a>(coverage: impl IntoIterator<Item = &'a Coverage>) -> Command {
    let families = deniable(coverage);
    let why = |ladder: &Ladder| {
        let none =
            if ladder.denies { "a hook that denies it does not work" } else { "BPF LSM does not work here" };
        (ladder.family, format!("{none}: `toolwarden doctor` tells more, and `watch` tells every deviation"))
    };
    let because = LADDERS.iter().filter(|l| !families.contains(&l.family)).map(why).collect();
    Command::Enforceable { families, because }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Done = Done::Yes;

    fn no(errno: i32) -> Done {
        Done::No { errno, text: format!("errno {errno}") }
    }

    fn hook(name: &str) -> &'static Hook {
        HOOKS.iter().find(|h| h.name == name).expect("a hook")
    }

    fn proof(done: &[(Act, Done)], seen: &[Act]) -> Proof {
        Proof { done: done.iter().cloned().collect(), seen: seen.iter().copied().collect(), broken: None }
    }

    #[test]
    fn each_combination_has_its_state_and_its_reason() {
        let all = [(Act::Open, YES), (Act::Read, YES), (Act::Write, YES)];
        let refused: Result<(), &str> = Err("load failed: EPERM");
        for (name, attached, proof, state, word) in [
            ("cgroup/connect4", Ok(()), proof(&[(Act::Connect4, YES)], &[Act::Connect4]), State::Works, None),
            ("cgroup/connect4", Ok(()), proof(&[(Act::Connect4, YES)], &[]), State::Blind, Some("silent")),
            (
                "cgroup/connect4",
                Ok(()),
                proof(&[(Act::Connect4, no(1))], &[]),
                State::Unknown,
                Some("errno 1"),
            ),
            ("cgroup/connect4", Ok(()), proof(&[], &[]), State::Unknown, Some("did not come to it")),
            ("cgroup/connect4", refused, proof(&[(Act::Connect4, YES)], &[]), State::Blind, Some("EPERM")),
            // No IPv6 here: no act, and nothing to see.
            (
                "cgroup/connect6",
                Ok(()),
                proof(&[(Act::Connect6, no(99))], &[]),
                State::Works,
                Some("nothing to see"),
            ),
            (
                "cgroup/connect6",
                Ok(()),
                proof(&[(Act::Connect6, no(13))], &[]),
                State::Unknown,
                Some("errno 13"),
            ),
            ("io_uring", Ok(()), proof(&[(Act::Uring, no(38))], &[]), State::Works, Some("nothing to see")),
            ("syscalls", Ok(()), proof(&all, &[Act::Open, Act::Read, Act::Write]), State::Works, None),
            ("syscalls", Ok(()), proof(&all, &[Act::Open]), State::Degraded, Some("read, write")),
            ("syscalls", Ok(()), proof(&all, &[]), State::Blind, Some("open, read, write")),
            ("syscalls", Ok(()), proof(&all[..1], &[Act::Open]), State::Works, Some("not all")),
        ] {
            let verdict = classify(hook(name), attached, &proof, true);
            assert_eq!(verdict.state, state, "{name}: {verdict:?}");
            assert_eq!(verdict.because.is_some(), word.is_some(), "{name}: {verdict:?}");
            if let (Some(because), Some(word)) = (&verdict.because, word) {
                assert!(because.contains(word), "{name}: {verdict:?}");
            }
            let needs = state != State::Works;
            assert_eq!(verdict.remedy.is_some(), needs, "{name}: {verdict:?}");
        }
    }

    #[test]
    fn a_name_that_was_not_asked_for_is_held_against_nobody() {
        let egress = proof(&[(Act::Egress, YES)], &[Act::Egress]);
        assert_eq!(classify(hook("cgroup/egress"), Ok(()), &egress, false).because, None);
        let verdict = classify(hook("cgroup/egress"), Ok(()), &egress, true);
        assert_eq!(verdict.state, State::Works);
        assert!(verdict.because.is_some_and(|b| b.contains("dns")));
        let silent = proof(&[(Act::Egress, YES), (Act::Dns, YES)], &[Act::Egress]);
        assert_eq!(classify(hook("cgroup/egress"), Ok(()), &silent, true).state, State::Degraded);
    }

    fn coverage(hook: &str, state: CoverageState) -> Coverage {
        Coverage { hook: hook.into(), state, because: None }
    }

    #[test]
    fn coverage_is_blind_when_one_of_its_hooks_is_silent() {
        let lifecycle = coverage("lifecycle", CoverageState::Observing);
        let done = [(Act::Fork, YES), (Act::Exec, YES), (Act::Exit, YES)];
        let good = proof(&done, &[Act::Fork, Act::Exec, Act::Exit]);
        assert_eq!(prove(&lifecycle, &good), lifecycle);
        let silent = prove(&lifecycle, &proof(&done, &[Act::Fork, Act::Exec]));
        assert_eq!(silent.state, CoverageState::Blind);
        assert!(silent.because.is_some_and(|b| b.contains("exit") && b.contains("ended processes")));
        // Not tried is not silent.
        assert_eq!(prove(&lifecycle, &Proof::default()), lifecycle);
        let blind = coverage("lifecycle", CoverageState::Blind);
        assert_eq!(prove(&blind, &good), blind);
    }

    #[test]
    fn a_family_is_enforceable_when_every_way_in_is_denied() {
        use CoverageState::{Enforcing, Observing};
        let network = LADDERS.iter().find(|l| l.family == Family::Network).expect("a ladder");
        let all = |state| network.hooks.iter().map(|h| coverage(h, state)).collect::<Vec<_>>();
        assert_eq!(deniable(&all(Observing)), BTreeSet::new());
        assert_eq!(deniable(&all(Enforcing)), BTreeSet::from([Family::Network]));
        let mut gap = all(Enforcing);
        gap[3].state = Observing;
        assert_eq!(deniable(&gap), BTreeSet::new());
        // Programs at these see only.
        let seen = [coverage("syscalls", Enforcing), coverage("lifecycle/exec", Enforcing)];
        assert_eq!(deniable(&seen), BTreeSet::new());
        let lsm = [coverage("lsm/file_open", Enforcing)];
        assert_eq!(deniable(&lsm), BTreeSet::from([Family::File]));
        let (families, because) = match enforceable(&lsm) {
            Command::Enforceable { families, because } => (families, because),
            other => unreachable!("{other:?}"),
        };
        assert_eq!(families, BTreeSet::from([Family::File]));
        assert!(
            because.get(&Family::Network).is_some_and(|why| why.starts_with("a hook that denies it")),
            "{because:?}"
        );
        assert!(because.get(&Family::Exec).is_some_and(|why| why.starts_with("BPF LSM")), "{because:?}");
    }
}
