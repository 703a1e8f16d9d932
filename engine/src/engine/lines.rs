//! Lines on their way out: counted for their calls, held until the server is known.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    call::Call,
    charge::Charge,
    output::{Basis, Effect, Line, LostLine, Output, ServerEvent, Time},
    server::Server,
    tree::{HELD_LINES, Tree},
};

/// Counts an effect for the calls that it may belong to. True when it is certain to belong to one that
/// had replied before.
pub(super) fn tally(server: &mut Server, charge: &Charge, effect: &Effect, count: u64) -> bool {
    if let Some(info) = charge.certain_call() {
        let Some((call, replied)) = server.find(info.number) else {
            return true;
        };
        let window = charge.scope.basis == Basis::Window;
        // A server that ends within a call did not use all its CPU time for it.
        if !(window && matches!(effect, Effect::Exit { .. })) {
            call.tally.add(effect, count);
        }
        return replied;
    }
    if !matches!(effect, Effect::Syscall { .. }) {
        for info in charge.calls.iter() {
            info.ambiguous.fetch_add(count, Relaxed);
        }
    }
    false
}

/// Lines of a server that is known go out; others wait.
pub(super) fn emit(tree: &mut Tree, mut line: Line, out: &mut Vec<Output>) {
    if let Some(server) = &tree.server
        && server.announced
    {
        stamp(&mut line, server);
        out.push(Output::Line(Box::new(line)));
    } else if tree.held.len() < HELD_LINES {
        tree.held.push(line);
    } else {
        tree.overflow += 1;
    }
}

/// Lines made before the server was known learn whose they are.
pub(super) fn stamp(line: &mut Line, server: &Server) {
    let (shown, context) = match line {
        Line::Effect(l) => (&mut l.server, &mut l.context),
        Line::Call(l) => (&mut l.server, &mut l.context),
        Line::Server(l) => (&mut l.server, &mut l.context),
        Line::Lost(_) | Line::Coverage(_) | Line::Finding(_) | Line::Response(_) => return,
    };
    if !Arc::ptr_eq(shown, &server.shown) {
        *shown = Arc::clone(&server.shown);
    }
    if !Arc::ptr_eq(context, &server.context) {
        *context = Arc::clone(&server.context);
    }
}

/// Tells that a server was found, then what it did until now.
pub(super) fn announce(tree: &mut Tree, utc_minus_boot_ns: i64, out: &mut Vec<Output>) {
    let at = |boot_ns: u64| Time { utc: utc_minus_boot_ns.saturating_add(boot_ns as i64), boot_ns };
    let Some(server) = &mut tree.server else {
        return;
    };
    server.announced = true;
    let found = at(server.found_ns);
    if let Some(line) = tree.line(ServerEvent::Found, None, found) {
        emit(tree, Line::Server(line), out);
    }
    for line in std::mem::take(&mut tree.held) {
        emit(tree, line, out);
    }
    if tree.overflow > 0 {
        let line = LostLine {
            time: found,
            cause: "candidate:held-lines".into(),
            count: tree.overflow,
            total: tree.overflow,
        };
        out.push(Output::Line(Box::new(Line::Lost(line))));
    }
}

/// Tells what a call did.
pub(super) fn finish(utc_minus_boot_ns: i64, tree: &mut Tree, call: Call, out: &mut Vec<Output>) {
    let Some(server) = &tree.server else { return };
    let boot_ns = call.began_ns;
    let time = Time { utc: utc_minus_boot_ns.saturating_add(boot_ns as i64), boot_ns };
    let line = call.summary(time, Arc::clone(&server.shown), Arc::clone(&server.context));
    emit(tree, Line::Call(line), out);
}
