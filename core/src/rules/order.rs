//! The order in which rules decide, as a table.

macro_rules! stages {
    ($($(#[doc = $doc:literal])+ $stage:ident => $rule:literal, $flag:literal;)*) => {
        /// What decides about a response, in this order: of two that could, the first one does. From
        /// [`Fields`](Stage::Fields) on, each adds to the fields of the response. `Nosniff`, `Isolate` and `Cors` keep a
        /// field that is there already, the later ones replace it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Stage { $($(#[doc = $doc])+ $stage,)* }

        impl Stage {
            /// All stages, in order.
            pub const ALL: &'static [Stage] = &[$(Stage::$stage,)*];

            /// The [name](crate::Rule::name) of the rule that `sanserve explain` prints where it decides.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $(Stage::$stage => $rule,)* }
            }

            /// The flag of the command or the method of [`Policy`](crate::Policy) that it depends on; empty: none.
            #[must_use]
            pub const fn flag(self) -> &'static str {
                match self { $(Stage::$stage => $flag,)* }
            }

            /// What it does.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Stage::$stage => concat!($($doc),+),)* }.trim_start()
            }
        }
    };
}

stages! {
    /// Responds to the path of the health check.
    Health => "health", "--health";
    /// Responds to a preflight request.
    Preflight => "cors-preflight", "--cors";
    /// Redirects a path.
    Redirect => "redirect", "--redirect";
    /// Passes the request to the handler, which may decline it.
    Handler => "", "Policy::route";
    /// Runs a script.
    Script => "script-path", "--cgi";
    /// Removes the prefix; a path without it is a 404.
    Prefix => "outside-prefix", "--route-prefix";
    /// Takes a name that begins with a dot for one that does not exist.
    Hidden => "hidden-dotfile", "--hide-dotfiles";
    /// Redirects the path of a page with its extension to the one without it.
    CleanRedirect => "clean-url-redirect", "--clean-urls";
    /// Serves the file at the path.
    File => "file", "";
    /// Serves the page whose extension the path lacks.
    CleanUrl => "clean-url", "--clean-urls";
    /// Redirects a directory to its path with a slash.
    Slash => "slash-redirect", "";
    /// Serves the first index page of a directory.
    Index => "index-chosen", "--index";
    /// Lists the directory.
    Listing => "listing", "--no-listing";
    /// Serves the page of the application to a navigation.
    Spa => "spa", "--spa";
    /// Sends a file as the page of the error.
    ErrorPage => "error-page", "--error-page";
    /// The fields of the file, script, handler or page itself.
    Fields => "", "";
    /// Forbids browsers to guess types.
    Nosniff => "nosniff", "--nosniff";
    /// Isolates pages from other sites.
    Isolate => "isolate", "--isolate";
    /// Lets pages of other origins read the response.
    Cors => "cors", "--cors";
    /// Says how long caches may keep the response.
    Cache => "cache", "--cache";
    /// Adds fields to all responses.
    HeaderAlways => "header-always", "--header-always";
    /// Adds fields to successful responses.
    Header => "header", "--header";
    /// Changes the fields.
    Policy => "", "Policy::fields";
}
