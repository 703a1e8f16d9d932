//! Inputs to the engine, and what it asks of the system.

use std::{io::Write as _, sync::Arc};

use anyhow::{Context as _, Result};
use engine::{
    Input, Output,
    input::Fact,
    judge::Command,
    output::{Line, Request, ServerEvent},
    recording,
    respond::Action,
};
use tokio::time::Instant;

use super::{Agent, News, now_ns};
use crate::{
    desk::Order,
    identity::{self, Asked},
    kernel::Counts,
    measure,
};

impl Agent {
    pub(super) fn fact(&mut self, fact: &Fact) -> Result<()> {
        self.apply(&Input::Fact { now_ns: now_ns(), fact })
    }

    pub(super) fn apply(&mut self, input: &Input<'_>) -> Result<()> {
        if let Some(file) = &mut self.recording {
            self.frame.clear();
            recording::write(*input, &mut self.frame);
            file.write_all(&self.frame).context("cannot write the recording")?;
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.clear();
        self.engine.apply(*input, &mut outputs);
        // Before the lines are printed: what a line says of "from now on" is so when it is read.
        let mut facts = Vec::new();
        for output in &outputs {
            match output {
                Output::Request(request) => self.perform(*request, &mut facts),
                Output::Answer(answer) => self.answered = Some(answer.clone()),
                Output::Policy(change) => self.change(change),
                Output::Respond(order) => facts.push(self.respond(order)),
                Output::Line(line) => {
                    if let Line::Server(line) = &**line
                        && line.event == ServerEvent::Found
                    {
                        self.is_server(&line.server.id);
                    }
                }
            }
        }
        let result = self.printer.print(&outputs);
        self.desk.observe(&outputs, &self.engine);
        self.outputs = outputs;
        result?;
        facts.iter().try_for_each(|f| self.fact(f))
    }

    pub(super) fn perform(&mut self, request: Request, facts: &mut Vec<Fact>) {
        match request {
            Request::Forget { tree } => self.kernel.forget(tree),
            Request::Await { tree } => self.waiting.wait(tree, std::time::Instant::now()),
            Request::ForgetChannel { channel } => {
                self.kernel.forget_channel(channel);
                self.ingest.forget(channel);
            }
            Request::Channel { channel, mode } => self.kernel.set_channel(channel, mode),
            Request::Prove { client } => self.kernel.prove(client),
            Request::Measure { tgid } => facts.extend(measure::usage(tgid)),
            Request::Drain => self.drain_wanted = true,
            Request::Identify { tree, tgid, root, client } => {
                let (news, configured) = (self.news.clone(), Arc::clone(&self.clients));
                let asked = Asked { tree, tgid, root, client };
                tokio::task::spawn_blocking(move || {
                    let found = identity::resolve(&asked, &configured);
                    // The loop is gone: so is the use of this.
                    let _unused = news.blocking_send(News::Fact(Box::new(Fact::Identity(found))));
                });
            }
        }
        if self.drain_wanted && !self.draining {
            self.start_drain();
        }
    }

    pub(super) fn start_drain(&mut self) {
        self.drain_wanted = false;
        let up_to = now_ns();
        if let Err(e) = self.counts.flip() {
            tracing::error!("{e:#}");
            return;
        }
        self.draining = true;
        self.when_settled(News::Settled(up_to));
    }

    /// Hears of it when every kernel program that runs now is over.
    fn when_settled(&self, of: News) {
        let news = self.news.clone();
        tokio::task::spawn_blocking(move || {
            Counts::settle();
            // The loop is gone: so is the use of this.
            let _unused = news.blocking_send(of);
        });
    }

    /// Takes out what nobody is held to any more, when no program can know of it.
    pub(super) fn retire(&mut self) {
        if self.retiring || !self.kernel.begin_retiring() {
            return;
        }
        self.retiring = true;
        self.when_settled(News::Retired);
    }

    pub(super) fn hand_in(&mut self, up_to_ns: u64) -> Result<()> {
        let mut facts = Vec::new();
        self.counts.drain(&mut facts);
        facts.retain(|fact| !self.watch.counted(fact));
        if !self.drain_wanted {
            self.watch.drained();
        }
        facts.push(Fact::Drained { up_to_ns });
        facts.iter().try_for_each(|f| self.fact(f))
    }

    pub(super) fn on_news(&mut self, news: News) -> Result<()> {
        match news {
            News::Fact(fact) => {
                self.fact(&fact)?;
                if let Fact::Identity(identity) = &*fact
                    && self.hold.is_none()
                {
                    self.kernel.settle(identity.tree);
                }
                Ok(())
            }
            News::Clients(configured) => {
                self.clients = configured;
                Ok(())
            }
            News::Retired => {
                self.retiring = false;
                self.kernel.end_retiring();
                self.retire();
                Ok(())
            }
            News::Settled(up_to) => {
                self.draining = false;
                self.drained_at = Instant::now();
                self.hand_in(up_to)?;
                if self.drain_wanted {
                    self.start_drain();
                }
                Ok(())
            }
        }
    }

    /// What those who work off the loop cannot do themselves.
    pub(super) fn on_order(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Command(command, answer) => {
                self.answered = None;
                // What an agent before this one stopped reads nothing, so it may be no server to the engine yet.
                let released = match &*command {
                    Command::Respond { server, action: Action::Release, dry_run: false, .. } => {
                        Some(server.clone())
                    }
                    _ => None,
                };
                self.fact(&Fact::Command(*command))?;
                let mut said = self.answered.take().unwrap_or_else(|| Err("the engine does not say".into()));
                if let (Some(name), Err(_)) = (released, &said) {
                    said = self.contain.release_named(&name, &mut self.kernel).unwrap_or(said);
                }
                // Whoever waited may have gone.
                drop(answer.send(said));
            }
            Order::Settings(live) => self.on_settings(live),
            Order::Changed(answer) => {
                let snapshot = self.desk.snapshot(&mut self.engine);
                if let Err(snapshot) = answer.send(snapshot) {
                    self.desk.unsaved(snapshot.keys());
                }
            }
            Order::Unsaved(keys) => self.desk.unsaved(keys),
        }
        Ok(())
    }
}
