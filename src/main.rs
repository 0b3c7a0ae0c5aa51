//! The `outgate` program.

fn main() -> std::process::ExitCode {
    outgate::cli::run(std::env::args_os())
}
