//! Existing programs that were written for other servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cgi_forms::{can_run, is_missing};
use testkit::Runtime;
use testkit::scripts::{Gateway, install, request};

/// PHP finds the script, its paths, and the body of any method. A query that looks like options of PHP is a query.
pub fn php(rt: Runtime) {
    let gateway = Gateway::start(rt);
    if !can_run(&gateway, "server.php") {
        return;
    }
    install(&gateway.tree, "cgi-bin", &[("one.php", "#!/usr/bin/php-cgi\n<?php echo 1;\n")]);
    let mut client = gateway.connect();
    assert_eq!(client.get("/cgi-bin/one.php").body, b"1");
    let root = gateway.tree.root().canonicalize().expect("the path exists");
    let root = root.display();
    for (rest, info) in
        [("", "none"), ("/", "/"), ("/http://a//b?x=1", "/http://a//b"), ("?-s", "none"), ("?-i", "none")]
    {
        let answer = client.get(format!("/cgi-bin/server.php{rest}"));
        let path = if info == "none" { "" } else { info };
        let expected = format!(
            "PHP_SELF=/cgi-bin/server.php{path}\nSCRIPT_NAME=/cgi-bin/server.php\n\
             SCRIPT_FILENAME={root}/cgi-bin/server.php\nPATH_INFO={info}\nREQUEST_URI=/cgi-bin/server.php{rest}\n\
             DOCUMENT_ROOT={root}\nPHP_AUTH_USER=none\n"
        );
        assert_eq!(answer.body_text(), expected, "{rest}");
        assert!(!answer.body_text().contains("<?php"));
    }
    for method in ["PUT", "DELETE", "POST"] {
        let fields = "Content-Type: text/plain\r\nAuthorization: Basic bWFsbG9yeTp4\r\n";
        let answer = client.ask(request(method, "/cgi-bin/server.php", fields, "the body"));
        assert!(answer.body_text().ends_with("PHP_AUTH_USER=none\nthe body"), "{method}: {answer:?}");
    }
    drop(client);
    gateway.settle();
}

/// A new repository.
struct Repositories(PathBuf);

impl Repositories {
    /// With `count` branches, each with a commit of its own.
    fn with_branches(count: usize, outside: &Path) -> Repositories {
        let repositories = Repositories(outside.join("repositories"));
        let bare = repositories.0.join("a.git");
        let made = repositories.git().args(["init", "-q", "--bare"]).arg(&bare).status().expect("git is installed");
        assert!(made.success());
        let commits: String = (0..count)
            .map(|n| {
                format!("commit refs/heads/b{n}\ncommitter N <n@example> {n} +0000\ndata 1\n{}\n", n % 10)
                    + &format!("M 100644 inline file\ndata {}\n{n}\n", n.to_string().len())
            })
            .collect();
        fs::write(outside.join("commits"), commits).expect("a fresh directory");
        let mut import = repositories.git();
        import.arg("-C").arg(&bare).args(["fast-import", "--quiet"]);
        import.stdin(fs::File::open(outside.join("commits")).expect("the file exists"));
        assert!(import.status().expect("git is installed").success());
        repositories
    }

    /// git, independent of the settings of the user.
    fn git(&self) -> Command {
        let home = self.0.parent().expect("the tree's");
        let mut git = Command::new("git");
        git.env("HOME", home).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0").current_dir(home);
        git.args(["-c", "init.defaultBranch=b0", "-c", "http.proxy="]);
        for proxy in ["http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"] {
            git.env_remove(proxy);
        }
        git.stdin(Stdio::null()).stderr(Stdio::null());
        git
    }

    fn branches(&self, of: &Path) -> usize {
        let listed =
            self.git().arg("-C").arg(of).args(["for-each-ref", "refs/heads"]).output().expect("git is installed");
        String::from_utf8_lossy(&listed.stdout).lines().count()
    }
}

/// `git-http-backend`: a clone whose request is long enough for git to compress it, and a push by a client that only
/// claims to be authenticated, which is refused.
pub fn git(rt: Runtime) {
    const BRANCHES: usize = 120;
    if ["git-http-backend", "git-remote-http"].iter().any(|part| is_missing(part, !has_git(part))) {
        return;
    }
    let gateway = Gateway::start(rt);
    let outside = gateway.tree.outside();
    let repositories = Repositories::with_branches(BRANCHES, outside);
    // The user of the scripts may differ from the owner of the files.
    let script = format!(
        "#!/bin/sh\nexport GIT_PROJECT_ROOT='{}' GIT_HTTP_EXPORT_ALL=1\n\
         export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'\n\
         [ -z \"$HTTP_CONTENT_ENCODING\" ] || echo \"in $HTTP_CONTENT_ENCODING\" >&2\nexec git http-backend\n",
        repositories.0.display()
    );
    install(&gateway.tree, "cgi-bin", &[("git", &script)]);
    let url = |user: &str| format!("http://{user}{}/cgi-bin/git/a.git", gateway.server.address());
    let bare = repositories.0.join("a.git");
    for version in ["0", "2"] {
        let clone = outside.join(format!("clone-{version}"));
        let mut command = repositories.git();
        command.args(["-c", &format!("protocol.version={version}"), "clone", "-q", "--mirror", &url("")]).arg(&clone);
        assert!(command.status().expect("git is installed").success(), "version {version}");
        assert_eq!(repositories.branches(&clone), BRANCHES, "version {version}");
    }
    gateway.remark("git", "in gzip");
    for user in ["", "mallory:x@"] {
        let mut push = repositories.git();
        push.arg("-C").arg(outside.join("clone-2")).args(["push", "-q", &url(user), "refs/heads/b1:refs/heads/new"]);
        assert!(!push.status().expect("git is installed").success(), "{user:?} pushes");
        assert_eq!(repositories.branches(&bare), BRANCHES, "{user:?}");
    }
    gateway.remark("git", "Service not enabled: 'receive-pack'");
    gateway.settle();
}

/// Whether this part of git is installed.
fn has_git(part: &str) -> bool {
    let place = Command::new("git").arg("--exec-path").output();
    place.is_ok_and(|place| Path::new(String::from_utf8_lossy(&place.stdout).trim_end()).join(part).exists())
}
