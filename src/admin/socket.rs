//! The admin socket: made or inherited, and answered until the role stops.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::{MAX_REQUEST, Refusal, Request, Response};
use crate::net::inherited::{InheritError, Inherited};
use crate::net::shutdown::Stop;

/// Mode of the socket: owner and group.
const MODE: u32 = 0o660;

/// Time for one request and its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Requests served at one time.
const MAX_AT_ONCE: usize = 16;

/// Pause after an error of accept.
const PAUSE: Duration = Duration::from_millis(100);

/// A role, as the admin socket asks it.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Answers with an object, or refuses with a sentence.
    fn answer(&self, request: Request) -> impl Future<Output = Result<Value, String>> + Send;
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The inherited one.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// The one to be made.
    #[error("cannot listen for `outgate status` on {path}: {source}")]
    Bind {
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// The inherited socket `admin`, or one made at `path`.
///
/// # Errors
/// It cannot be made, or what was handed over cannot be used.
pub fn open(path: &Path, inherited: &mut Inherited) -> Result<UnixListener, SocketError> {
    let fault = |source| SocketError::Bind { path: path.display().to_string(), source };
    let socket = match inherited.unix("admin")?.pop() {
        Some(socket) => socket,
        None => bind(path).map_err(fault)?,
    };
    socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)).map_err(fault)
}

/// Binds the socket. One that an earlier process left behind is replaced; a file of any other kind is not.
fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|left| left.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let socket = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(socket)
}

/// Lets `role` answer until `stop` says so.
pub async fn serve(listener: UnixListener, role: impl Answer, mut stop: Stop) {
    let mut requests = JoinSet::new();
    loop {
        let may_accept = requests.len() < MAX_AT_ONCE;
        tokio::select! {
            accepted = listener.accept(), if may_accept => match accepted {
                Ok((socket, _)) => {
                    requests.spawn(serve_one(socket, role.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "accept failed on the admin socket");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = requests.join_next() => {}
            () = stop.requested() => return,
        }
    }
}

async fn serve_one(socket: UnixStream, role: impl Answer) {
    let answered = async {
        let (reading, mut writing) = socket.into_split();
        let mut line = String::new();
        BufReader::new(reading.take(MAX_REQUEST as u64 + 1)).read_line(&mut line).await?;
        let outcome = match Request::parse(&line) {
            Ok(request) => role.answer(request).await,
            Err(error) => Err(error),
        };
        let mut answer = match outcome {
            Ok(value) => value.to_string(),
            Err(error) => serde_json::to_string(&Response::Error(Refusal { error }))?,
        };
        answer.push('\n');
        writing.write_all(answer.as_bytes()).await?;
        writing.shutdown().await
    };
    let outcome: Result<io::Result<()>, _> = tokio::time::timeout(ANSWER_WITHIN, answered).await;
    if let Ok(Err(error)) = outcome {
        tracing::debug!(%error, "admin request failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Action, Subject};
    use crate::net::shutdown;

    #[test]
    fn the_socket_replaces_a_socket_left_behind_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(bind(&path).unwrap());
        let _socket = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let file = folder.path().join("precious");
        std::fs::write(&file, "kept").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }

    #[derive(Clone)]
    struct Echo;

    impl Answer for Echo {
        async fn answer(&self, request: Request) -> Result<Value, String> {
            match request {
                Request::Get(Subject::Status) => Ok(serde_json::json!({"role": "echo"})),
                Request::Get(Subject::LinkKeys | Subject::Links)
                | Request::Do(Action::Reattach | Action::Reload | Action::Revoke(_) | Action::MakeCode(_)) => Err("not here".to_owned()),
            }
        }
    }

    async fn ask(path: &Path, line: &str) -> String {
        let mut socket = UnixStream::connect(path).await.unwrap();
        socket.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_line_is_answered_with_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = open(&path, &mut Inherited::none()).unwrap();
        let (stopper, stop) = shutdown::pair();
        let asking = async {
            assert_eq!(ask(&path, "{\"get\":\"status\"}\n").await, "{\"role\":\"echo\"}\n");
            assert_eq!(ask(&path, "{\"do\":\"reattach\"}\n").await, "{\"error\":\"not here\"}\n");
            assert!(ask(&path, "hello\n").await.starts_with("{\"error\":"));
            stopper.stop();
        };
        tokio::join!(serve(listener, Echo, stop), asking);
    }
}
