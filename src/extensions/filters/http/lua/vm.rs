//! The virtual machine of a script on one worker, and what keeps a script from hanging the worker.
//!
//! LuaJIT with Lua 5.2's `pairs`, as Envoy has it, but interpreted: compiled loops would not notice the limits. A run of
//! a script (from one wait to the next) may take [`LONGEST_RUN`]; its machine may hold [`MOST_MEMORY`]. Past them the
//! script fails as by an error of its own. The libraries are Lua's safe ones: no `ffi`, no `debug`, no native modules.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use mlua::{AnyUserData, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Thread, VmState};

use super::{config::Script, handle};

/// How long a script may run at a stretch. Nothing else happens on the worker meanwhile.
const LONGEST_RUN: Duration = Duration::from_secs(1);

/// Bytes that a script's machine may hold on a worker, for all its streams together.
const MOST_MEMORY: usize = 256 * 1024 * 1024;

/// Instructions between two looks at the clock.
const PACE: u32 = 10_000;

/// Where a machine's waiting functions are kept, by name.
pub(super) const FUNCTIONS: &str = "nuncio.functions";

/// Functions that may have to wait: what they find is their result unless they say that the coroutine must yield for it.
const PRELUDE: &str = r#"
local native, yield = ...
local function settle(wait, ...)
  if wait then return yield() end
  return ...
end
local functions = {}
for _, name in ipairs({"body", "trailers", "httpCall", "respond"}) do
  local f = native[name]
  functions[name] = function(...) return settle(f(...)) end
end
local next_chunk = native.chunk
functions.bodyChunks = function(handle)
  native.chunks(handle)
  return function() return settle(next_chunk(handle)) end
end
return functions
"#;

/// Machines by script.
type Machines = HashMap<u64, (Weak<Script>, Rc<Vm>)>;

thread_local! {
    /// This worker's machines.
    static MACHINES: RefCell<Machines> = RefCell::default();
}

/// A script's machine on this thread.
pub(super) struct Vm {
    pub lua: Lua,
    /// `envoy_on_request`
    pub on_request: Option<Function>,
    /// `envoy_on_response`
    pub on_response: Option<Function>,
    deadline: Rc<Cell<Option<Instant>>>,
}

impl Vm {
    /// This thread's machine for the script.
    pub fn of(script: &Arc<Script>) -> mlua::Result<Rc<Self>> {
        if let Some(vm) = MACHINES.with_borrow(|all| all.get(&script.id).map(|(_, vm)| vm.clone())) {
            return Ok(vm);
        }
        let vm = Rc::new(Self::new(script)?);
        let gone: Vec<_> = MACHINES.with_borrow_mut(|all| {
            all.insert(script.id, (Arc::downgrade(script), vm.clone()));
            // Machines of configurations that are no more.
            all.extract_if(|_, (script, _)| script.strong_count() == 0).collect()
        });
        drop(gone);
        Ok(vm)
    }

    /// A new machine in which the script has run once.
    pub fn new(script: &Script) -> mlua::Result<Self> {
        let lua = Lua::new_with(StdLib::ALL_SAFE, LuaOptions::default())?;
        // Without an allocator of its own a machine has no limit; there the process's is all.
        let _ = lua.set_memory_limit(MOST_MEMORY);
        let deadline: Rc<Cell<Option<Instant>>> = Rc::default();
        lua.load("jit.off()").exec()?;
        watch(&lua, PACE, deadline.clone())?;
        let yielding: Function = lua.globals().get::<Table>("coroutine")?.get("yield")?;
        let functions: Table = lua.load(PRELUDE).call((handle::waiting(&lua)?, yielding))?;
        lua.set_named_registry_value(FUNCTIONS, functions)?;
        let resolutions = lua.create_table_from([("MILLISECOND", 0), ("MICROSECOND", 1)])?;
        lua.globals().set("EnvoyTimestampResolution", resolutions)?;
        if !script.path.is_empty() {
            let package: Table = lua.globals().get("package")?;
            let builtin: String = package.get("path")?;
            package.set("path", format!("{};{builtin}", script.path))?;
        }
        let vm = Self {
            lua,
            on_request: None,
            on_response: None,
            deadline,
        };
        // The name is the source, as when Lua is given a string: messages say `[string "first line..."]`.
        let chunk = vm.lua.load(script.source.as_str()).set_name(script.source.as_str());
        vm.limited(|| chunk.exec())?;
        let (on_request, on_response) = {
            let globals = vm.lua.globals();
            (
                globals.get::<Option<Function>>("envoy_on_request").unwrap_or_default(),
                globals.get::<Option<Function>>("envoy_on_response").unwrap_or_default(),
            )
        };
        Ok(Self {
            on_request,
            on_response,
            ..vm
        })
    }

    /// Goes on with a coroutine.
    pub fn resume(&self, thread: &Thread, args: MultiValue) -> mlua::Result<()> {
        self.limited(|| thread.resume::<MultiValue>(args)).map(|_| ())
    }

    /// A coroutine that runs `function` on `handle` when it is resumed without arguments but the handle.
    pub fn start(&self, function: &Function, handle: AnyUserData) -> mlua::Result<(Thread, MultiValue)> {
        let thread = self.lua.create_thread(function.clone())?;
        Ok((thread, MultiValue::from_iter([mlua::Value::UserData(handle)])))
    }

    fn limited<T>(&self, run: impl FnOnce() -> mlua::Result<T>) -> mlua::Result<T> {
        self.deadline.set(Some(Instant::now() + LONGEST_RUN));
        let result = run();
        if self.deadline.take().is_some_and(|due| due < Instant::now()) {
            // It was watched at every step.
            watch(&self.lua, PACE, self.deadline.clone())?;
        }
        result
    }
}

/// Looks at the clock every `pace` instructions. A script that has run for too long fails at every step from there on:
/// it cannot catch that and go on.
fn watch(lua: &Lua, pace: u32, deadline: Rc<Cell<Option<Instant>>>) -> mlua::Result<()> {
    lua.set_global_hook(
        HookTriggers::new().every_nth_instruction(pace),
        move |lua, _| match deadline.get() {
            Some(due) if due < Instant::now() => {
                if pace > 1 {
                    watch(lua, 1, deadline.clone())?;
                }
                Err(mlua::Error::runtime("script has run for too long"))
            }
            _ => Ok(VmState::Continue),
        },
    )
}

/// What went wrong, without the trace.
pub(super) fn message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::RuntimeError(text) | mlua::Error::MemoryError(text) => {
            text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
        }
        mlua::Error::CallbackError { cause, .. } => message(cause),
        other => other.to_string(),
    }
}
