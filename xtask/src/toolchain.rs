//! Choosing and proving a compiler and a linker for the BPF object.
//!
//! The order is: a toolchain that is fit already, else rustup's `rust-src` (two minutes less and
//! no root), else Debian's packages. Whatever is chosen must build a BPF program before it is
//! written down: a linker of another LLVM, or a core that does not fit its compiler, shows only
//! there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    apt,
    steps::Steps,
    toolchain_file::{BUILD_ARGS, Toolchain},
    tools::Tool,
    workspace::{Workspace, is_program, on_path, output},
};

/// compiler, LLVM, linker, proof
pub(crate) const STEPS: usize = 4;

const LINKER: Tool = Tool { name: "bpf-linker", version: "0.13.0" };
/// The LLVM versions that this bpf-linker has a feature for.
const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;
/// rustc-web and its companions follow the stable releases within a Debian release.
const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_CLIPPY: &str = "rust-web-clippy";
/// `e_machine` of an ELF file for BPF.
const EM_BPF: [u8; 2] = 247_u16.to_le_bytes();

/// A compiler that has the sources of core beside it.
struct Rust {
    cargo: PathBuf,
    rustc: PathBuf,
    version: String,
}

/// The recorded toolchain, when nothing about it has changed since it was proved.
pub(crate) fn there(workspace: &Workspace) -> Option<String> {
    let Toolchain { cargo, rustc, linker, version } = Toolchain::read(&workspace.root).ok()??;
    let now = Rust::at(rustc, cargo)?;
    (now.version == version && is_program(&linker)).then(|| format!("{version}, bpf-linker"))
}

/// Finds or installs the parts, proves them together and writes the choice down.
pub(crate) fn make(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("a Rust compiler with the sources of core");
    let rust = match rust_here() {
        Some(rust) => rust,
        None => install_rust(steps)?,
    };
    steps.note(format_args!("{}: {}", rust.rustc.display(), rust.version));

    let with = |linker: PathBuf| Toolchain {
        cargo: rust.cargo.clone(),
        rustc: rust.rustc.clone(),
        linker,
        version: rust.version.clone(),
    };
    let linkers = [Some(workspace.tool(LINKER.name)), on_path(LINKER.name)];
    for linker in linkers.into_iter().flatten().filter(|l| is_program(l)) {
        let toolchain = with(linker);
        steps.note(format_args!("trying {}", toolchain.linker.display()));
        match prove(workspace, steps, &toolchain) {
            Ok(()) => return record(workspace, &toolchain),
            Err(e) => steps.note(format_args!("not fit: {e:#}")),
        }
    }

    steps.begin("LLVM, for the linker");
    let llvm = llvm(steps, &rust)?;
    steps.note(format_args!("LLVM {llvm}"));

    steps.begin(format_args!("building bpf-linker {} for LLVM {llvm} (about two minutes)", LINKER.version));
    let feature = format!("llvm-{llvm}");
    LINKER.install(
        workspace,
        steps,
        &["--no-default-features", "--features", &feature],
        // Without it the linker's build script looks for LLVM in /usr/lib64.
        &[("LLVM_PREFIX", &format!("/usr/lib/llvm-{llvm}"))],
    )?;

    steps.begin("proving it: building a BPF program");
    let toolchain = with(workspace.tool(LINKER.name));
    prove(workspace, steps, &toolchain)?;
    record(workspace, &toolchain)
}

impl Rust {
    /// `None` unless it has the sources of core and is new enough for this workspace.
    fn at(rustc: PathBuf, cargo: PathBuf) -> Option<Self> {
        if !is_program(&cargo) {
            return None;
        }
        let version = output(Command::new(&rustc).arg("--version"))?;
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let core = "lib/rustlib/src/rust/library/core/src/lib.rs";
        let fit = Path::new(&sysroot).join(core).exists()
            && minor(&version)? >= minor(concat!("rustc ", env!("CARGO_PKG_RUST_VERSION")))?;
        fit.then_some(Self { cargo, rustc, version })
    }
}

/// The minor number in `rustc 1.96.0 (...)`.
fn minor(version: &str) -> Option<u32> {
    version.split(' ').nth(1)?.split('.').nth(1)?.parse().ok()
}

/// A fit compiler on this machine: the one in use, the distribution's, any other of rustup's.
fn rust_here() -> Option<Rust> {
    let own = std::env::var_os("CARGO").map(PathBuf::from);
    let beside = own.and_then(|cargo| Some((cargo.parent()?.join("rustc"), cargo)));
    let distribution = ("/usr/bin/rustc".into(), "/usr/bin/cargo".into());
    beside
        .into_iter()
        .chain([distribution])
        .chain(rustup_toolchains().iter().filter_map(|name| rustup_paths(name)))
        .find_map(|(rustc, cargo)| Rust::at(rustc, cargo))
}

fn rustup_toolchains() -> Vec<String> {
    let list = output(Command::new("rustup").args(["toolchain", "list", "--quiet"]));
    list.unwrap_or_default().lines().map(str::to_owned).collect()
}

fn rustup_paths(toolchain: &str) -> Option<(PathBuf, PathBuf)> {
    let which = |tool: &str| {
        let mut rustup = Command::new("rustup");
        rustup.args(["which", "--toolchain", toolchain, tool]);
        output(&mut rustup).map(PathBuf::from)
    };
    Some((which("rustc")?, which("cargo")?))
}

fn install_rust(steps: &Steps) -> Result<Rust> {
    // Stable first: it serves as well as a nightly (see RUSTC_BOOTSTRAP) and its LLVM moves less.
    let mut toolchains = rustup_toolchains();
    toolchains.retain(|name| name.starts_with("stable") || name.starts_with("nightly"));
    toolchains.sort_by_key(|name| !name.starts_with("stable"));
    for name in toolchains {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", "rust-src", "--toolchain", &name]);
        match steps.run(&mut rustup) {
            Ok(()) => {
                if let Some(rust) = rustup_paths(&name).and_then(|(r, c)| Rust::at(r, c)) {
                    return Ok(rust);
                }
                steps.note(format_args!("{name} has rust-src, yet does not fit (too old?)"));
            }
            Err(_no_network) => steps.note("rustup cannot fetch rust-src here"),
        }
    }
    apt::install(steps, &DEBIAN_RUST, "building BPF").context(
        "no compiler here has the sources of core, and neither rustup nor apt can provide one \
         (with network, `rustup component add rust-src` is enough)",
    )?;
    Rust::at("/usr/bin/rustc".into(), "/usr/bin/cargo".into()).with_context(|| {
        format!("{} are installed but no fit compiler is at /usr/bin/rustc", DEBIAN_RUST.join(" "))
    })
}

/// The LLVM to build the linker for: the compiler's own or a newer one, which reads its bitcode.
fn llvm(steps: &Steps, rust: &Rust) -> Result<u32> {
    let verbose = output(Command::new(&rust.rustc).arg("-vV")).unwrap_or_default();
    let own: u32 = verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
        .with_context(|| format!("{} -vV names no LLVM version", rust.rustc.display()))?;
    let usable: Vec<u32> = LINKER_LLVMS.filter(|&version| version >= own).collect();
    let names = |version: u32| [format!("llvm-{version}-dev"), format!("libpolly-{version}-dev")];
    let installed = |version: &u32| apt::missing(&names(*version).each_ref().map(|n| &**n)).is_empty();
    if let Some(&version) = usable.iter().find(|v| installed(v)) {
        return Ok(version);
    }
    let offered = |version: &&u32| names(**version).iter().all(|name| apt::offers(name));
    if !usable.iter().any(|v| offered(&v)) {
        apt::update(steps)?;
    }
    // Where none is on offer, the error of installing the first says what is missing.
    let version = usable.iter().find(offered).or(usable.first()).copied().ok_or_else(|| {
        anyhow!(
            "{} has LLVM {own}, and bpf-linker {} knows none later than {}",
            rust.version,
            LINKER.version,
            LINKER_LLVMS.end()
        )
    })?;
    apt::install(steps, &names(version).each_ref().map(|n| &**n), "bpf-linker")?;
    Ok(version)
}

/// Builds a program of ten lines, so that a fault in our own BPF source is not mistaken for one
/// of the toolchain.
fn prove(workspace: &Workspace, steps: &Steps, toolchain: &Toolchain) -> Result<()> {
    const MANIFEST: &str = "[package]\nname = \"probe\"\nedition = \"2024\"\n\n\
                            [profile.release]\nlto = \"thin\"\n\n[workspace]\n";
    const SOURCE: &str = r#"#![no_std]
#![no_main]
#[unsafe(no_mangle)]
#[unsafe(link_section = "tracepoint")]
extern "C" fn probe() -> i32 {
    0
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
"#;
    let dir = workspace.target.join("bpf-probe");
    fs::create_dir_all(dir.join("src"))?;
    fs::write(dir.join("Cargo.toml"), MANIFEST)?;
    fs::write(dir.join("src/main.rs"), SOURCE)?;
    let object = dir.join("target/bpfel-unknown-none/release/probe");
    if object.exists() {
        fs::remove_file(&object)?;
    }
    let mut cargo = toolchain.command(&toolchain.cargo);
    cargo
        .current_dir(&dir)
        .arg("build")
        .args(BUILD_ARGS.iter().filter(|&&arg| arg != "--locked"))
        .args(["--target-dir", "target"]);
    steps.run(&mut cargo)?;
    let bytes = fs::read(&object).with_context(|| format!("no {}", object.display()))?;
    ensure!(bytes.get(18..20) == Some(&EM_BPF), "{} is not an ELF file for BPF", object.display());
    Ok(())
}

fn record(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let file = Toolchain::file(&workspace.root);
    fs::write(&file, toolchain.to_string()).with_context(|| format!("cannot write {}", file.display()))
}

/// The linter of the toolchain's own version: another one cannot read its core.
pub(crate) fn clippy_there(workspace: &Workspace) -> Option<String> {
    let toolchain = Toolchain::read(&workspace.root).ok()??;
    let clippy = cargo_clippy(&toolchain)?;
    Some(clippy.display().to_string())
}

/// `cargo-clippy` beside the toolchain's cargo.
pub(crate) fn cargo_clippy(toolchain: &Toolchain) -> Option<PathBuf> {
    let beside = |tool: &Path, name: &str| Some(tool.parent()?.join(name)).filter(|p| is_program(p));
    beside(&toolchain.rustc, "clippy-driver")?;
    beside(&toolchain.cargo, "cargo-clippy")
}

pub(crate) fn make_clippy(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("clippy of the BPF toolchain");
    let toolchain = Toolchain::read(&workspace.root)
        .map_err(|e| anyhow!(e))?
        .context("it must fit the BPF toolchain, which is missing")?;
    if toolchain.rustc.starts_with("/usr/bin") {
        apt::install(steps, &[DEBIAN_CLIPPY], "linting BPF")?;
    } else {
        let name = toolchain.rustc.iter().rev().nth(2).context("no toolchain directory")?;
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", "clippy", "--toolchain"]).arg(name);
        steps.run(&mut rustup)?;
    }
    if cargo_clippy(&toolchain).is_none() {
        bail!("no cargo-clippy beside {}", toolchain.cargo.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn versions() {
        assert_eq!(minor("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some(96));
        assert_eq!(minor("rustc 1.95"), Some(95));
        assert_eq!(minor("rustc 1.97.0-nightly (0000000 2026-01-01)"), Some(97));
        assert_eq!(minor("cargo"), None);
    }
}
