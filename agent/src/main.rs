mod kernel;
fn main() -> anyhow::Result<()> {
    let t = std::time::Instant::now();
    let (mut k, _r, c) = kernel::Kernel::load(20_000_000)?;
    println!("loaded {:?}", t.elapsed());
    for c in &k.coverage { println!("{c:?}"); }
    let t = std::time::Instant::now();
    k.attach_syscalls()?;
    println!("attached {:?}", t.elapsed());
    std::thread::sleep(std::time::Duration::from_secs(2));
    println!("{:?}", c.losses());
    k.detach_syscalls()?;
    Ok(())
}
