//! One connection: a server of one runtime, and a client that sends what the peer of a transcript sent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sanserve_os::{Root, Symlinks};
use sanserve_server::{Log, Site};

use super::disk::Disk;
use super::plan::Plan;
use crate::cli::flags::Runtime;

/// How long to wait for a silent server. Whatever it sent until then is the result.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns everything that a new server sends.
pub(crate) fn talk(runtime: Runtime, plan: &Plan, disk: &Disk) -> io::Result<Vec<u8>> {
    disk.rewind()?;
    let root = Root::open(disk.root(), Symlinks::Follow)?;
    let site = Site::beneath(root).with_config(plan.settings.config.clone()).with_log(Log::to(io::sink()));
    let server = Running::start(runtime, site)?;
    let came = converse(server.address, plan);
    server.stop()?;
    came
}

fn converse(address: SocketAddr, plan: &Plan) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut writing = stream.try_clone()?;
    thread::scope(|scope| {
        // In a thread of its own, so that sending and reading do not wait for each other.
        let writer = scope.spawn(move || {
            // A server that has closed reads no more. Its response says why.
            let _ = writing.write_all(&plan.input);
            if plan.eof {
                let _ = writing.shutdown(Shutdown::Write);
            }
        });
        let mut came = Vec::new();
        let mut writer = Some(writer);
        let mut room = vec![0; 1 << 16];
        loop {
            if !plan.eof && came.len() >= plan.until {
                if let Some(writer) = writer.take() {
                    let _ = writer.join();
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
            match stream.read(&mut room) {
                Ok(0) => return Ok(came),
                Ok(n) => came.extend_from_slice(&room[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It closed with a reset, or hangs. Both show in the bytes that arrived.
                Err(_) => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return Ok(came);
                }
            }
        }
    })
}

/// A server that runs in its own thread.
struct Running {
    address: SocketAddr,
    thread: JoinHandle<io::Result<()>>,
    stop: Box<dyn FnOnce()>,
}

impl Running {
    fn start(runtime: Runtime, site: Site) -> io::Result<Running> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(match runtime {
            Runtime::Mio => {
                let server = sanserve_mio::Server::bind(free, site)?.workers(1);
                let (address, handle) = (server.local_addr(), server.handle());
                Running { address, thread: thread::spawn(move || server.run()), stop: Box::new(move || handle.stop()) }
            }
            Runtime::Std => {
                let server = sanserve_std::Server::bind(free, site)?;
                let (address, handle) = (server.local_addr(), server.handle());
                Running { address, thread: thread::spawn(move || server.run()), stop: Box::new(move || handle.stop()) }
            }
            Runtime::Smol => {
                let server = sanserve_smol::Server::bind(free, site)?.workers(1);
                let (address, handle) = (server.local_addr(), server.handle());
                Running { address, thread: thread::spawn(move || server.run()), stop: Box::new(move || handle.stop()) }
            }
        })
    }

    fn stop(self) -> io::Result<()> {
        (self.stop)();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
    }
}
