//! The root that a guest boots: busybox, an init of some lines, and one program to run. With systemd, the init
//! goes on to a disk, and systemd runs the program.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;

use super::{SLOWNESS, kernels::Unpacked};
use crate::cpio::Cpio;

/// What the guest says on its second serial line when the program has ended.
pub(super) const ENDED: &str = "toolwarden-vm: ended with ";
/// And when it begins.
pub(super) const BEGINS: &str = "toolwarden-vm: begins";

/// On the kernel's command line: cgroup v2 alone, and BPF among the security modules.
pub(super) const APPEND: &str = "cgroup_no_v1=all lsm=landlock,lockdown,yama,integrity,apparmor,bpf loglevel=4 \
     systemd.mask=serial-getty@ttyS0.service systemd.mask=getty.target";

/// Path in the guest, without the first slash, and content.
pub(super) type File = (String, Vec<u8>);

/// What a guest does.
pub(super) struct Job {
    /// Path in the guest.
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) files: Vec<File>,
}

/// What process 1 of a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Busybox,
    Systemd,
}

const DIRECTORIES: [&str; 11] =
    ["bin", "proc", "sys", "dev", "etc", "tmp", "run", "root", "mnt", "var/lib", "var/tmp"];

const FILES: [(&str, &str); 6] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/hostname", "guest\n"),
    // Tests put another one in its place.
    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
];

/// The archive.
pub(super) fn root(busybox: &Path, kernel: &Unpacked, first: First, job: &Job) -> Result<Cpio> {
    let mut files = vec![("bin/busybox".to_owned(), fs::read(busybox)?)];
    let mut add = |path: &str, text: &str| files.push((path.to_owned(), text.as_bytes().to_vec()));
    match first {
        First::Busybox => {
            FILES.iter().for_each(|(path, text)| add(path, text));
            add("init", &init(job));
            files.extend(job.files.iter().cloned());
        }
        First::Systemd => {
            let modules = kernel.disk()?;
            let names: Vec<&str> = modules.iter().map(|(name, _)| *name).collect();
            add("init", &init_to_disk(&names));
            add("disk/run-job", &run_in_systemd(job));
            files.extend(modules.into_iter().map(|(name, bytes)| (format!("modules/{name}.ko"), bytes)));
            files.extend(job.files.iter().map(|(path, bytes)| (format!("disk/{path}"), bytes.clone())));
        }
    }
    let mut directories = BTreeSet::new();
    let parents = files.iter().filter_map(|(path, _)| Path::new(path).parent());
    for directory in parents.chain(DIRECTORIES.iter().map(Path::new)) {
        directories.extend(directory.ancestors().filter(|d| !d.as_os_str().is_empty()));
    }
    let mut cpio = Cpio::default();
    // Sorted, so that parents come first.
    for directory in directories {
        cpio.directory(&directory.display().to_string());
    }
    for (path, bytes) in &files {
        cpio.file(path, bytes);
    }
    Ok(cpio)
}

/// Runs the job and says how it ended.
fn run(job: &Job) -> String {
    let args: Vec<String> = job.args.iter().map(|a| quoted(a)).collect();
    format!(
        "echo '{BEGINS}'
# Sockets of all tests stay open to the end.
ulimit -n 65536
cd /root
E2E_GUEST=1 E2E_SLOW={SLOWNESS} {} {}
echo \"{ENDED}$?\"
# What was written last must leave the serial line first.
sleep 0.3
",
        quoted(&job.program),
        args.join(" ")
    )
}

fn init(job: &Job) -> String {
    let run = run(job);
    format!(
        "#!/bin/busybox sh
# Hard links: a program's path is then its own name, as on other systems.
/bin/busybox --install /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
hostname guest
chmod 600 /etc/shadow
stty -F /dev/ttyS1 raw -echo
exec < /dev/null > /dev/ttyS1 2>&1
{run}poweroff -f
"
    )
}

/// Goes on to the system on the disk, with the job's files copied there.
fn init_to_disk(modules: &[&str]) -> String {
    let modules = modules.join(" ");
    format!(
        "#!/bin/busybox sh
/bin/busybox --install /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module.ko; done
mount -t ext4 /dev/vda /mnt
cp -a /disk/. /mnt/
umount /dev /sys /proc
exec switch_root /mnt /sbin/init
"
    )
}

/// Waits until systemd has started all there is, says how that went, and runs the job.
fn run_in_systemd(job: &Job) -> String {
    let run = run(job);
    format!(
        "#!/bin/sh
stty -F /dev/ttyS1 raw -echo
exec < /dev/null > /dev/ttyS1 2>&1
export HOME=/root
echo \"systemd: $(systemctl is-system-running --wait)\"
systemctl --failed --plain --no-legend
echo \"controllers: $(cat /sys/fs/cgroup/cgroup.controllers)\"
mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
{run}systemctl poweroff --force --force
"
    )
}

/// For the shell, whatever it holds.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_program_as_they_are() {
        let job = Job { program: "/t/x".into(), args: vec!["a b".into(), "it's".into()], files: vec![] };
        assert!(init(&job).contains(r"'/t/x' 'a b' 'it'\''s'"));
    }
}
