//! What time brings: identities, measurements, settled calls, ended servers.

use std::sync::Arc;

use super::{
    CLOSING_NS, Engine, IDENTITY_NS, QUIET_NS,
    lines::{announce, emit, finish},
};
use crate::{
    call::{Call, Stage},
    input::Identity,
    output::{Line, Output, Request, ServerEvent},
};

impl Engine {
    pub(super) fn on_identity(&mut self, identity: &Identity, out: &mut Vec<Output>) {
        let time = self.time(self.now_ns);
        let Some(tree) = self.trees.get_mut(&identity.tree) else {
            return;
        };
        let Some(server) = &mut tree.server else {
            return;
        };
        let mut shown = (*server.shown).clone();
        if !identity.name.is_empty() {
            shown.name.clone_from(&identity.name);
        }
        server.shown = Arc::new(shown);
        let mut context = (*server.context).clone();
        context.client.clone_from(&identity.client);
        server.context = Arc::new(context);
        server.identity = Some(identity.clone());
        if server.announced {
            if let Some(line) = tree.line(ServerEvent::Identified, None, time) {
                emit(tree, Line::Server(line), out);
            }
        } else {
            announce(tree, self.utc_minus_boot_ns, out);
        }
    }

    pub(super) fn on_usage(
        &mut self,
        tgid: u32,
        cpu_ns: u64,
        rss: u64,
        peak_rss: u64,
        out: &mut Vec<Output>,
    ) {
        for server in self.trees.values_mut().filter_map(|t| t.server.as_mut()).filter(|s| s.reader == tgid) {
            let peak = if peak_rss > server.peak_rss { peak_rss } else { rss };
            server.peak_rss = server.peak_rss.max(peak_rss);
            for call in server.calls.iter_mut().filter(|c| c.reader == tgid) {
                if let Stage::Closing { measured, .. } = &mut call.stage
                    && !*measured
                {
                    *measured = true;
                    call.peak_rss = peak;
                    call.cpu_end_ns.get_or_insert(cpu_ns);
                }
            }
        }
        self.for_closing(out, |_| {});
    }

    /// Changes calls that are closing, and tells those that are complete.
    pub(super) fn for_closing(&mut self, out: &mut Vec<Output>, mut change: impl FnMut(&mut Call)) {
        let now = self.now_ns;
        for tree in self.trees.values_mut() {
            let Some(server) = &mut tree.server else {
                continue;
            };
            let mut done = Vec::new();
            let mut i = 0;
            while i < server.calls.len() {
                change(&mut server.calls[i]);
                match server.calls[i].stage {
                    Stage::Closing { until, drained, measured } if drained && measured || now >= until => {
                        done.push(server.calls.remove(i));
                    }
                    _ => i += 1,
                }
            }
            for call in done {
                finish(self.utc_minus_boot_ns, tree, call, out);
            }
        }
    }

    pub(super) fn on_stop(&mut self, out: &mut Vec<Output>) {
        let now = self.now_ns;
        let mut ids: Vec<u64> = self.trees.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(tree) = self.trees.get_mut(&id) else {
                continue;
            };
            let Some(server) = &mut tree.server else {
                continue;
            };
            server.abandon(now);
            let calls = std::mem::take(&mut server.calls);
            if !server.announced {
                announce(tree, self.utc_minus_boot_ns, out);
            }
            for call in calls {
                finish(self.utc_minus_boot_ns, tree, call, out);
            }
        }
    }

    pub(super) fn on_tick(&mut self, out: &mut Vec<Output>) {
        let now = self.now_ns;
        let mut drain = false;
        let mut quiet = Vec::new();
        let mut ended = Vec::new();
        // In order of age, so that the same inputs give the same outputs.
        let mut ids: Vec<u64> = self.trees.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(tree) = self.trees.get_mut(&id) else {
                continue;
            };
            let Some(server) = &mut tree.server else {
                if !tree.dismissed && tree.request.next == 0 && now.saturating_sub(tree.began_ns) > QUIET_NS {
                    quiet.push(id);
                }
                continue;
            };
            for call in &mut server.calls {
                if let Stage::Settling { until } | Stage::Cancelled { until } = call.stage
                    && now >= until
                {
                    call.stage = Stage::Closing {
                        until: now.saturating_add(CLOSING_NS),
                        drained: false,
                        measured: false,
                    };
                    drain = true;
                    out.push(Output::Request(Request::Measure { tgid: call.reader }));
                }
            }
            if !server.announced && now.saturating_sub(server.found_ns) > IDENTITY_NS {
                announce(tree, self.utc_minus_boot_ns, out);
            }
            if let Some(server) = &tree.server
                && tree.alive == 0
                && server.announced
            {
                if tree.ended_ns.is_none() {
                    tree.ended_ns = Some(now);
                    drain = true;
                }
                if server.calls.is_empty() && tree.counted {
                    ended.push(id);
                }
            }
        }
        if drain {
            out.push(Output::Request(Request::Drain));
        }
        for id in quiet {
            self.dismiss(id, out);
        }
        self.for_closing(out, |_| {});
        for id in ended {
            let time = self.time(now);
            if let Some(tree) = self.trees.get_mut(&id)
                && let Some(line) = tree.line(ServerEvent::Ended, None, time)
            {
                emit(tree, Line::Server(line), out);
            }
            self.forget(id, out);
        }
    }
}
