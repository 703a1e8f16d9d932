//! What is done about findings: the planner, and whom its orders are about.

use std::sync::Arc;

use super::Engine;
use crate::{
    finding::{Finding, Origin},
    input::{Fact, Input},
    judge::{Command, Mode},
    output::{Line, Output, ServerEvent, ServerLine},
    respond::{Action, Order, Outcome, Planner, Subject, planner::Wish},
};

impl Engine {
    /// What decides about responses.
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// Processes that no order about this tree may touch: clients of it, and of servers that are no part of it.
    pub fn clients_beside(&self, tree: u64) -> impl Iterator<Item = u32> {
        let outside = move |t: &&crate::tree::Tree| t.id == tree || !self.is_within(t.id, tree);
        self.trees.values().filter(|t| t.server.is_some()).filter(outside).map(|t| t.client)
    }

    /// Whether a tree is another one, or nested in it.
    fn is_within(&self, mut tree: u64, outer: u64) -> bool {
        for _ in 0..=self.trees.len() {
            if tree == outer {
                return true;
            }
            match self.trees.get(&tree).and_then(|t| t.parent) {
                Some(parent) => tree = parent,
                None => return false,
            }
        }
        false
    }

    /// Everything that an input leads to.
    pub(super) fn respond(
        &mut self,
        input: Input<'_>,
        from: usize,
        findings: &[Finding],
        out: &mut Vec<Output>,
    ) {
        // Hardly ever is there such a line: the lines need not be copied.
        for at in from..out.len() {
            let Some(Output::Line(line)) = out.get(at) else { continue };
            if let Line::Server(line) = &**line {
                let line = line.clone();
                self.respond_to_server(&line, out);
            }
        }
        self.respond_to(findings, out);
        match input {
            Input::Tick { .. } => Self::order_all(self.planner.tick(self.now_ns), out),
            Input::Fact { fact: Fact::Stop, .. } => Self::order_all(self.planner.stop(self.now_ns), out),
            _ => {}
        }
    }

    fn subject(&self, tree: u64) -> Option<Subject> {
        let t = self.trees.get(&tree)?;
        let server = t.server.as_ref()?;
        let identity = self.judge.identity_of(&server.shown.id).map(ToString::to_string).unwrap_or_default();
        Some(Subject {
            tree,
            server: Arc::clone(&server.shown),
            context: Arc::clone(&server.context),
            identity,
            own: vec![t.root, server.reader],
        })
    }

    fn tree_of(&self, server: &str) -> Option<u64> {
        let id = u64::from_str_radix(server, 16).ok()?;
        self.trees.get(&id)?.server.as_ref().map(|_| id)
    }

    /// Responds to what was just found.
    pub(super) fn respond_to(&mut self, findings: &[Finding], out: &mut Vec<Output>) {
        for f in findings {
            let Some(subject) = self.tree_of(&f.server.id).and_then(|tree| self.subject(tree)) else {
                continue;
            };
            let rules = Arc::clone(self.judge.rules());
            let response = match &f.origin {
                Origin::Rule { rule, .. } => rules.rule(rule).map(|r| r.response.as_slice()),
                Origin::Baseline { .. } | Origin::Detector => None,
            };
            let response = response.filter(|r| !r.is_empty());
            let enforce = self.judge.mode_of(&f.server.name, f.scope.tool.as_deref()) == Mode::Enforce;
            let order = self.planner.finding(f, response, &subject, enforce, self.now_ns);
            out.extend(order.map(Output::Respond));
        }
    }

    /// Servers that start or end: quarantine, and what is left to tidy up.
    pub(super) fn respond_to_server(&mut self, line: &ServerLine, out: &mut Vec<Output>) {
        let Ok(tree) = u64::from_str_radix(&line.server.id, 16) else { return };
        let now = self.now_ns;
        match line.event {
            ServerEvent::Ended => out.extend(self.planner.ended(tree, now).map(Output::Respond)),
            ServerEvent::Found | ServerEvent::Identified => {
                let Some(subject) = self.subject(tree).filter(|s| !s.identity.is_empty()) else { return };
                let (order, looping) = self.planner.identified(&subject, &self.before(tree), now);
                out.extend(order.map(Output::Respond));
                if let Some(starts) = looping {
                    let time = self.time(now);
                    self.judge.respawned(&line.server.id, time, starts);
                }
            }
            ServerEvent::Forging | ServerEvent::Blind => {}
        }
    }

    /// What a server did before it was known who it is.
    fn before(&self, tree: u64) -> String {
        let Some(t) = self.trees.get(&tree) else { return String::new() };
        let ms = self.now_ns.saturating_sub(t.began_ns) / 1_000_000;
        let effects = t.server.as_ref().map_or(0, |s| s.ambiguity.effects);
        let since = if t.pre_existing { "since it was found" } else { "since its exec" };
        format!("it ran for {ms} ms {since}, with {effects} effects after its first message")
    }

    /// A person's decision about a server.
    pub(super) fn on_wish(&mut self, command: &Command, out: &mut Vec<Output>) -> bool {
        let Command::Respond { server, action, for_ns, dry_run, by } = command else {
            return false;
        };
        let (wish, now) =
            (Wish { action: *action, for_ns: *for_ns, dry_run: *dry_run, who: by.clone() }, self.now_ns);
        let ordered = match self.tree_of(server).and_then(|tree| self.subject(tree)) {
            Some(subject) => self.planner.wish(&wish, &subject, now).map(Some),
            None if *action == Action::Release && !dry_run => match self.planner.lift(server, now) {
                0 => Err(format!("no server `{server}` runs, and none of that name is in quarantine")),
                _ => {
                    out.push(Output::Answer(Ok(format!("{server} may start again"))));
                    Ok(None)
                }
            },
            None => Err(format!("no server `{server}` runs; `toolwarden servers` lists them")),
        };
        match ordered {
            // The answer comes with its outcome.
            Ok(order) => out.extend(order.map(Output::Respond)),
            Err(why) => out.push(Output::Answer(Err(why))),
        }
        true
    }

    pub(super) fn on_responded(&mut self, outcome: &Outcome, out: &mut Vec<Output>) {
        let Some(settled) = self.planner.responded(outcome, self.now_ns) else { return };
        out.push(Output::Line(Box::new(Line::Response(Box::new(settled.line)))));
        out.extend(settled.answer.map(Output::Answer));
    }

    pub(super) fn order_all(orders: Vec<Order>, out: &mut Vec<Output>) {
        out.extend(orders.into_iter().map(Output::Respond));
    }
}
