//! What time brings: identities, measurements, settled calls, ended servers.

use std::sync::Arc;

use super::{
    Engine, IDENTITY_NS, QUIET_NS,
    lines::{announce, emit, finish},
};
use crate::{
    input::{Identity, Usage},
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
        self.judge.identify(server.shown.id.clone(), identity);
        let mut shown = (*server.shown).clone();
        if !identity.name.is_empty() {
            shown.name.clone_from(&identity.name);
        }
        server.shown = Arc::new(shown);
        let mut context = (*server.context).clone();
        context.client.clone_from(&identity.client);
        context.container.clone_from(&identity.container);
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

    pub(super) fn on_usage(&mut self, usage: &Usage, out: &mut Vec<Output>) {
        let readers = self.trees.values_mut().filter_map(|t| t.server.as_mut());
        for server in readers.filter(|s| s.reader == usage.tgid) {
            // Its peak is this call's only if this call raised it.
            let raised = usage.peak_rss > server.peak_rss;
            server.peak_rss = server.peak_rss.max(usage.peak_rss);
            let peak_rss = if raised { usage.peak_rss } else { usage.rss };
            server.measured(Usage { peak_rss, ..*usage });
        }
        self.tell_complete(out);
    }

    /// Tells the calls that are complete.
    pub(super) fn tell_complete(&mut self, out: &mut Vec<Output>) {
        for tree in self.trees.values_mut() {
            while let Some((call, observed)) = tree.server.as_mut().and_then(|s| s.complete(self.now_ns)) {
                self.observed.extend(observed.map(|o| (tree.id, o)));
                finish(self.utc_minus_boot_ns, tree, call, out);
            }
        }
    }

    pub(super) fn on_stop(&mut self, out: &mut Vec<Output>) {
        let now = self.now_ns;
        let ids: Vec<u64> = self.trees.keys().copied().collect();
        for id in ids {
            let Some(tree) = self.trees.get_mut(&id) else {
                continue;
            };
            let Some(server) = &mut tree.server else {
                continue;
            };
            server.abandon(now);
            server.settle(now);
            let closing = std::mem::take(&mut server.closing);
            if !server.announced {
                announce(tree, self.utc_minus_boot_ns, out);
            }
            for c in closing.into_values() {
                finish(self.utc_minus_boot_ns, tree, c.call, out);
            }
        }
    }

    pub(super) fn on_tick(&mut self, out: &mut Vec<Output>) {
        let now = self.now_ns;
        let mut drain = false;
        let mut quiet = Vec::new();
        let mut ended = Vec::new();
        let ids: Vec<u64> = self.trees.keys().copied().collect();
        for id in ids {
            let Some(tree) = self.trees.get_mut(&id) else {
                continue;
            };
            let Some(server) = &mut tree.server else {
                // A client talks to a server that it has just started; one that runs already may wait for
                // longer, and is more dear: found again, it begins with requests that nobody saw.
                let longer = self.in_flight_ns.saturating_mul(2).max(QUIET_NS);
                let patience = if tree.pre_existing { longer } else { QUIET_NS };
                if !tree.dismissed && tree.request.next == 0 && now.saturating_sub(tree.began_ns) > patience {
                    quiet.push(id);
                }
                continue;
            };
            for tgid in server.settle(now) {
                drain = true;
                out.push(Output::Request(Request::Measure { tgid }));
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
                if server.calls.is_empty() && server.closing.is_empty() && tree.counted {
                    ended.push(id);
                }
            }
        }
        if drain {
            out.push(Output::Request(Request::Drain));
        }
        for id in quiet {
            let running = self.trees.get(&id).is_some_and(|t| t.pre_existing);
            self.dismiss(id, out);
            if running && !self.trees.contains_key(&id) {
                out.push(Output::Request(Request::Await { tree: id }));
            }
        }
        self.tell_complete(out);
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
