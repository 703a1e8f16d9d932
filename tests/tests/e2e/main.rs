//! End-to-end tests. They need root, a kernel with BPF, and one at a time: `--test-threads=1`.

mod alone;
mod bad_input;
mod busy;
mod contain;
mod daemon;
mod doctor;
mod environment;
mod flood;
mod forging;
mod hooks;
mod kept;
mod lifecycle;
mod lsm;
mod pipelines;
mod place;
mod protocol;
mod real_servers;
mod replay;
mod respond;
mod running;
mod schema;
mod spaced;
mod story;
mod systemd;
