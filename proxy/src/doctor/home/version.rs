//! The version of a client: the program asked for it, with a limit.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long a program may take to say its version: Codex is started through Node.js.
const VERSION: Duration = Duration::from_secs(10);

/// What a client says its version is.
pub(super) fn version(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // Clients are scripts that start programs: what they started ends with them.
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let Some(output) = child.stdout.take() else { return Err("it has no output".to_owned()) };
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut text = String::new();
        // What is no text is no version.
        let _ = BufReader::new(output.take(4096)).read_line(&mut text);
        let _ = sender.send(text);
    });
    let told = receiver.recv_timeout(VERSION);
    // It has said what it has to say, or will not.
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
    let text = told.map_err(|_| format!("it took longer than {} s", VERSION.as_secs()))?;
    let line = text.trim();
    if line.is_empty() { Err("it said nothing".to_owned()) } else { Ok(line.chars().take(60).collect()) }
}
