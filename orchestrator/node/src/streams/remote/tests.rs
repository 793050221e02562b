use futures::future::BoxFuture;
use podium_api::streams::PodStreams;
use serde_json::json;

use super::super::serve::serve;
use super::*;

/// A node whose only program repeats its input, says the sizes of its terminal, and ends with 7.
struct Echo;

impl PodStreams for Echo {
    fn logs<'a>(
        &'a self,
        pod: &'a Value,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async move {
            if options.container == "none" {
                return Err(Status::bad_request("container none is not of the pod"));
            }
            let first = format!("{} {options:?}\n", object::name(pod));
            let long = "x".repeat(3 * PART_BYTES);
            let lines = [Ok(Bytes::from(first)), Ok(Bytes::from(long))];
            let end = stream::once(async move {
                if options.follow {
                    std::future::pending::<()>().await;
                }
                Err(std::io::Error::other("the disk is gone"))
            });
            Ok(stream::iter(lines).chain(end).boxed())
        })
    }

    fn exec<'a>(
        &'a self,
        _: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async move {
            let (stdin, mut input) = duplex(64);
            let (stdout, mut output) = duplex(64);
            let (stderr, mut errors) = duplex(64);
            let (resize, mut sizes) = mpsc::unbounded_channel::<TerminalSize>();
            let (ended, exit) = oneshot::channel();
            tokio::spawn(async move {
                // With a terminal nobody reads them.
                let _ = errors.write_all(request.command.join(" ").as_bytes()).await;
                drop(errors);
                if request.tty {
                    let size = sizes.recv().await.expect("a size");
                    let text = format!("{}x{};", size.columns, size.rows);
                    output.write_all(text.as_bytes()).await.expect("written");
                }
                tokio::io::copy(&mut input, &mut output).await.expect("copied");
                let _ = ended.send(ExecExit::Code(7));
            });
            Ok(ExecSession {
                stdin: Some(Box::pin(stdin)),
                stdout: Some(Box::pin(stdout)),
                stderr: (!request.tty).then_some(Box::pin(stderr)),
                resize: request.tty.then_some(resize),
                exit: Box::pin(
                    async move { exit.await.unwrap_or(ExecExit::Failed("gone".to_owned())) },
                ),
            })
        })
    }

    fn attach<'a>(
        &'a self,
        _: &'a Value,
        _: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async { Err(Status::service_unavailable("not now")) })
    }
}

/// A session with the node; the task ends when the node has nothing more to do for it.
fn session() -> (DuplexStream, tokio::task::JoinHandle<Result<(), FrameError>>) {
    let (here, there) = duplex(1024);
    (here, tokio::spawn(async move { serve(there, &Echo).await }))
}

fn pod() -> Value {
    json!({"metadata": {"namespace": "default", "name": "p", "uid": "u"}})
}

fn program(tty: bool) -> ExecRequest {
    let command = vec!["a".to_owned(), "b".to_owned()];
    let container = "c".to_owned();
    ExecRequest { container, command, stdin: true, stdout: true, stderr: !tty, tty }
}

async fn all(reader: &mut Option<podium_api::streams::Reader>) -> String {
    let mut text = String::new();
    let reader = reader.as_mut().expect("asked for");
    reader.read_to_string(&mut text).await.expect("read");
    text
}

#[tokio::test]
async fn a_program_on_another_node_has_input_output_errors_and_its_exit_code() {
    let (here, node) = session();
    let mut session = exec(here, &pod(), program(false)).await.expect("opened");
    let text = "y".repeat(3 * PART_BYTES);
    let mut stdin = session.stdin.take().expect("asked for");
    let sent = text.clone();
    let write = tokio::spawn(async move {
        stdin.write_all(sent.as_bytes()).await.expect("written");
        stdin.shutdown().await.expect("closed");
    });
    let (output, errors) = tokio::join!(all(&mut session.stdout), all(&mut session.stderr));
    assert_eq!(output, text);
    assert_eq!(errors, "a b");
    assert_eq!(session.exit.await, ExecExit::Code(7));
    write.await.expect("sent");
    node.await.expect("ran").expect("ended in order");
}

#[tokio::test]
async fn a_terminal_on_another_node_learns_its_size() {
    let (here, _node) = session();
    let mut session = exec(here, &pod(), program(true)).await.expect("opened");
    let resize = session.resize.take().expect("a terminal");
    resize.send(TerminalSize { columns: 80, rows: 25 }).expect("taken");
    drop(session.stdin.take());
    assert_eq!(all(&mut session.stdout).await, "80x25;");
    assert_eq!(session.exit.await, ExecExit::Code(7));
}

#[tokio::test]
async fn a_log_on_another_node_arrives_whole_and_ends_with_its_error() {
    let (here, _node) = session();
    let options = LogOptions {
        container: "c".to_owned(),
        since: Some("2026-11-21T12:00:00.000000001Z".parse().expect("a time")),
        tail_lines: Some(3),
        ..LogOptions::default()
    };
    let expected = format!("p {options:?}\n{}", "x".repeat(3 * PART_BYTES));
    let mut log = logs(here, &pod(), options).await.expect("opened");
    let mut text = Vec::new();
    let error = loop {
        match log.next().await.expect("more") {
            Ok(bytes) => text.extend_from_slice(&bytes),
            Err(error) => break error,
        }
    };
    assert_eq!(String::from_utf8(text).expect("text"), expected);
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(log.next().await.is_none());
}

#[tokio::test]
async fn refusals_arrive_as_what_they_were() {
    let options = LogOptions { container: "none".to_owned(), ..LogOptions::default() };
    let refused = logs(session().0, &pod(), options).await.err().expect("refused");
    assert_eq!((refused.code, refused.message.as_str()), (400, "container none is not of the pod"));
    let refused = attach(session().0, &pod(), program(false)).await.err().expect("refused");
    assert_eq!((refused.code, refused.message.as_str()), (503, "not now"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work_on_the_node() {
    let (here, node) = session();
    let follow = LogOptions { container: "c".to_owned(), follow: true, ..LogOptions::default() };
    let mut log = logs(here, &pod(), follow).await.expect("opened");
    assert!(log.next().await.expect("a line").is_ok());
    drop(log);
    node.await.expect("ran").expect_err("the connection was closed");
    let (here, node) = session();
    drop(exec(here, &pod(), program(false)).await.expect("opened"));
    node.await.expect("ran").expect_err("the connection was closed");
}

#[tokio::test]
async fn a_node_that_dies_is_an_exit_that_says_so() {
    let (here, node) = session();
    let session = exec(here, &pod(), program(false)).await.expect("opened");
    node.abort();
    let ExecExit::Failed(reason) = session.exit.await else { panic!("no program ended") };
    assert!(reason.contains("node broke"), "{reason}");
}
