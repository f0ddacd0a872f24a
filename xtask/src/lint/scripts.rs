//! Scripts parse.

use std::path::Path;

use crate::cargo::{command, output, root, run as run_command};

pub(crate) fn check() -> anyhow::Result<()> {
    let mut list = command("git");
    list.args(["ls-files", "*.sh", "*.py", ".ci/run"]);
    for path in output(list)?.lines() {
        let mut parse;
        if Path::new(path)
            .extension()
            .is_some_and(|extension| extension == "py")
        {
            parse = command("python3");
            parse.args([
                "-c",
                "import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])",
            ]);
        } else {
            parse = command("bash");
            parse.arg("-n");
        }
        parse.arg(root().join(path));
        run_command(parse)?;
    }
    Ok(())
}
