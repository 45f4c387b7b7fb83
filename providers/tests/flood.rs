//! Receivers that send more than anybody asked for. Alone in its program, so that the program's memory tells what a
//! sender keeps of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_providers::hooks::client::{Config, HttpHookSender};
use gantry_providers::hooks::{HookRequest, HookSender as _};

const GIGABYTE: usize = 1 << 30;

/// What the program may grow by: buffers of sockets and of the client, and room for the allocator.
const MOST_MB: usize = 24;

/// Answers each request with `head` and then with `again`, until a gigabyte is sent or the other side has enough.
fn receiver(head: &'static str, again: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&sent);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            if stream.read(&mut request).is_err() || stream.write_all(head.as_bytes()).is_err() {
                continue;
            }
            while count.load(Ordering::Relaxed) < GIGABYTE && stream.write_all(&again).is_ok() {
                count.fetch_add(again.len(), Ordering::Relaxed);
            }
        }
    });
    (address, sent)
}

/// The largest resident memory of this program so far.
fn peak_mb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn whatever_a_receiver_sends_little_of_it_is_kept() {
    let chunk = |text: &[u8]| [format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat();
    let floods: [(&str, &str, Vec<u8>); 6] = [
        ("a body of a gigabyte", "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", vec![b'x'; 65_536]),
        ("a body without end", "HTTP/1.1 200 OK\r\n\r\n", vec![b'x'; 65_536]),
        ("chunks of a byte", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk(b"x").repeat(10_000)),
        ("an extension of a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", vec![b'x'; 65_536]),
        ("headers without end", "HTTP/1.1 200 OK\r\n", b"x-padding: and so on and so forth\r\n".repeat(1_000)),
        ("one header without end", "HTTP/1.1 200 OK\r\nx-padding: ", vec![b'x'; 65_536]),
    ];
    let sender = HttpHookSender::new(&Config { allow_private: true, ..Config::default() }).unwrap();
    let deliver = |address: SocketAddr| {
        let url = format!("http://{address}/").parse().unwrap();
        sender.send(HookRequest::new(url, "{}").within(Duration::from_secs(1)))
    };
    // What everything needs that is sent at all.
    let (address, _) = receiver("HTTP/1.1 204 No Content\r\n\r\n", Vec::new());
    let _warm = deliver(address).await;
    let before = peak_mb();
    for (what, head, again) in floods {
        let (address, sent) = receiver(head, again);
        let came = match deliver(address).await {
            Ok(answer) => format!("{} with {} bytes", answer.status, answer.body.len()),
            Err(error) => error.code().to_owned(),
        };
        println!("{what}: {came}, {} KB were sent, {} MB", sent.load(Ordering::Relaxed) / 1024, peak_mb());
        assert!(peak_mb() < before + MOST_MB, "{what}: from {before} to {} MB", peak_mb());
    }
}
