use engine::{Engine, Input, recording::Reader};
use std::collections::BTreeMap;
use std::time::*;
fn main() {
    let b = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    let mut c: BTreeMap<String, (u64, Duration, usize)> = BTreeMap::new();
    for _ in 0..5 {
        let mut r = Reader::new(&b).unwrap();
        let mut e = Engine::new();
        let mut out = vec![];
        loop {
            let t = Instant::now();
            let Some(i) = r.next().unwrap() else { break };
            let rd = t.elapsed();
            let k = match i {
                Input::Record { bytes, .. } => format!("rec{}", engine::record::kind_of(bytes).unwrap()),
                Input::Tick { .. } => "tick".into(),
                Input::Fact { fact, .. } => {
                    format!("{fact:?}").chars().take_while(|c| c.is_alphabetic()).collect()
                }
            };
            let t = Instant::now();
            let n0 = out.len();
            e.apply(i, &mut out);
            let d = t.elapsed();
            let n = out.len() - n0;
            if out.len() > 1000 {
                out.clear();
            }
            let x = c.entry(k.clone()).or_default();
            x.0 += 1;
            x.1 += d;
            x.2 += n;
            let x = c.entry(k + " read").or_default();
            x.0 += 1;
            x.1 += rd;
        }
    }
    for (k, (n, d, l)) in c {
        println!(
            "{k:20} {n:8} {:8.0} ns each  {l} out, total {:.1} ms",
            d.as_nanos() as f64 / n as f64,
            d.as_secs_f64() * 1e3
        );
    }
}
