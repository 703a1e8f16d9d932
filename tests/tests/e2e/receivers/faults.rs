//! An HTTP server that fails as it is told to.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// What it does with a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Do {
    /// It has it.
    Take,
    /// It says something else: status, further headers, body.
    Say(u16, &'static str, &'static str),
    /// Nothing, until the other side gives up.
    Hang,
    /// It breaks the connection off.
    Reset,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) done: Do,
}

type Decide = dyn Fn(usize, &Request) -> Do + Send + Sync;

/// It serves until the test ends.
pub(crate) struct Server {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `decide` is asked with the number of the request, from 0.
    pub(crate) fn start(
        address: &str,
        decide: impl Fn(usize, &Request) -> Do + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| address.to_owned())?;
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (all, decide): (_, Arc<Decide>) = (Arc::clone(&requests), Arc::new(decide));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (all, decide) = (Arc::clone(&all), Arc::clone(&decide));
                thread::spawn(move || {
                    if let Err(e) = serve(stream, &all, &*decide) {
                        println!("a connection ended: {e:#}");
                    }
                });
            }
        });
        Ok(Self { requests })
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bodies that it has, one after the other.
    pub(crate) fn taken(&self) -> Result<String> {
        let taken = self.requests().into_iter().filter(|r| r.done == Do::Take);
        Ok(String::from_utf8(taken.flat_map(|r| r.body).collect())?)
    }
}

fn serve(stream: TcpStream, all: &Mutex<Vec<Request>>, decide: &Decide) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(mut request) = read(&mut reader)? {
        let done = {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            request.done = decide(all.len(), &request);
            let done = request.done.clone();
            all.push(request);
            done
        };
        let (status, headers, body) = match done {
            Do::Take => (200, "", "{}"),
            Do::Say(status, headers, body) => (status, headers, body),
            Do::Hang => {
                while reader.read(&mut [0])? > 0 {}
                return Ok(());
            }
            Do::Reset => {
                e2e::sys::reset_on_close(&stream)?;
                return Ok(());
            }
        };
        write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())?;
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).context("no path")?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "half a head");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length: usize = headers.get("content-length").context("no length")?.parse()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { at: Instant::now(), path, headers, body, done: Do::Take }))
}
