//! A directory tree on local disk that is held by descriptor: names are checked, nothing leads out of it.
