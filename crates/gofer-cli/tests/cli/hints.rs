//! What a command that fails says to do next works.

use gofer_core::Core;

use crate::shell::Machine;

/// Types lines to a core that may start programs, with `interval` installed and `nightly`.
async fn type_to_core(name: &'static str, lines: &'static str) {
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).allow_programs().start().await.unwrap();
    let mut machine = Machine::new(name);
    machine.connect_to(&core.address().unwrap().to_string(), core.token());
    let typed = tokio::task::spawn_blocking(move || {
        let image = format!("exec:{}", machine.file("target/debug/examples/interval").display());
        machine.set("IMAGE", &image);
        machine.type_block("$ gofer pipeline create nightly\n");
        machine.type_block("$ gofer extension install interval $IMAGE -c min_interval=1s\n");
        machine.type_block(lines);
    });
    typed.await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_refused_says_what_allows_it() {
    type_to_core(
        "hint-sub",
        "$ gofer extension update interval --for nope\n\
         $ gofer extension sub interval l -p nightly -s every=1h\n\
         error: the extension `interval` is not for the namespace `default`; …\n\
         hint: `gofer extension update interval --for default` …\n\
         $ gofer extension update interval --for default\n\
         $ gofer extension sub nope l -p nightly\n\
         error: no extension named `nope` …\nhint: `gofer extension list` …\n\
         $ gofer extension sub interval l -p nope -s every=1h\n\
         error: …\nhint: `gofer pipeline list` …\n\
         $ printf 1h | gofer secret put every --global\n\
         Stored every. No namespace may use it yet: see --for.\n\
         $ gofer extension sub interval l -p nightly -s 'every=global_secret{{ every }}'\n\
         error: …\nhint: `gofer secret put <key> --global --for default` …\n\
         $ printf 1h | gofer secret put every --global --for default --force\nStored every.\n\
         $ gofer extension disable interval\n\
         $ gofer extension sub interval l -p nightly -s 'every=global_secret{{ every }}'\n\
         error: …is disabled…\nhint: `gofer extension enable interval` …\n\
         $ gofer extension enable interval\n\
         $ gofer extension sub interval l -p nightly -s 'every=global_secret{{ every }}'\n\
         Subscribed default/nightly to interval (l).\n",
    )
    .await;
}

#[tokio::test]
async fn a_file_that_is_no_extension_is_refused_with_what_is_wrong() {
    type_to_core(
        "hint-program",
        "$ printf x > pusher\n\
         $ gofer extension install push pusher\n\
         error: …\nhint: for a program: `exec:./pusher`\n\
         $ gofer extension install push exec:/bin/true\n\
         error: the extension ended before it answered: …\nhint: …is it an extension?\n\
         $ gofer extension install push exec:/tmp\n\
         error: cannot start the program `/tmp`: it is a directory\n\
         $ gofer extension install push exec:/etc/passwd\n\
         error: cannot start the program `/etc/passwd`: it is not executable\n\
         $ gofer extension install push exec:nope\n\
         error: …`exec:./nope` is one in the directory in which the core was started\n",
    )
    .await;
}

#[tokio::test]
async fn a_run_and_a_secret_that_are_refused_say_what_to_do() {
    type_to_core(
        "hint-run",
        "$ gofer run start nightly\n\
         $ gofer pipeline disable nightly\n\
         $ gofer run retry nightly 1\n\
         error: …is disabled…\nhint: `gofer pipeline enable default/nightly` allows runs again\n\
         $ gofer secret get nope --global\n\
         error: …\nhint: `gofer secret list --pipeline <pipeline>`, or --global, shows the keys\n\
         $ gofer token create client --for default --expires 30d\n\
         error: …duration from now, …(a day is `24h`)\n\
         $ gofer extension uninstall interval\n\
         $ gofer extension install interval $IMAGE -i -c min_interval=1s\n\
         min_interval is taken from the command line.\n…\nInstalled interval.\n",
    )
    .await;
}
