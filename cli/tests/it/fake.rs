//! A node that gives one canned answer to every request, and remembers the requests.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

/// What a fake node does with a request.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    /// Answers with this status and body.
    Answer(u16, &'static str),
    /// Hangs up after it has read the request.
    HangUp,
}

pub(crate) struct FakeNode {
    pub(crate) socket: PathBuf,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    pub(crate) dir: tempfile::TempDir,
}

impl FakeNode {
    /// Serves until the test ends: the thread waits in `accept` and goes with the process.
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                seen.lock().unwrap().push(read_request(&mut reader));
                let mut stream = stream;
                if let Behaviour::Answer(status, body) = behaviour {
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                }
            }
        });
        Self { socket, requests, dir }
    }

    /// Runs the program against this node.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let socket = self.socket.to_str().unwrap();
        run(&[&["--socket", socket], args].concat())
    }
}

/// Runs the program with a clean environment.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_selvedge")).args(args).env_clear().output().unwrap()
}

/// Exit code, stdout, stderr.
pub(crate) fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Head and body as one text.
fn read_request(reader: &mut impl BufRead) -> String {
    let mut text = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        text.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    text.push_str(&String::from_utf8(body).unwrap());
    text
}
