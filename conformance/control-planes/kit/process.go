package kit

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a program the scenario started; its output goes to NAME.log in the scenario's folder.
type Process struct {
	Log   string
	cmd   *exec.Cmd
	done  chan struct{}
	group bool
}

var (
	liveMu sync.Mutex
	live   = map[*Process]bool{}
)

// KillAll ends every process that still runs. For an interrupted run.
func KillAll() {
	liveMu.Lock()
	defer liveMu.Unlock()
	for p := range live {
		p.kill()
	}
}

// Start runs a program until the scenario is over.
func (t *T) Start(name string, env []string, program string, args ...string) *Process {
	return t.start(&Process{}, name, t.Dir, env, program, args)
}

// StartLauncher is Start for a program that starts programs of its own: it runs in a folder of its own,
// and what it has started ends with the scenario too.
func (t *T) StartLauncher(name, dir string, env []string, program string, args ...string) *Process {
	return t.start(&Process{group: true}, name, dir, env, program, args)
}

func (t *T) start(p *Process, name, dir string, env []string, program string, args []string) *Process {
	p.Log, p.done = filepath.Join(t.Dir, name+".log"), make(chan struct{})
	log, err := os.Create(p.Log)
	t.OK(err, "log file")
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Nothing we start outlives us, even if we are killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: p.group}
	t.OK(startOnLastingThread(p.cmd), "start "+program)
	liveMu.Lock()
	live[p] = true
	liveMu.Unlock()
	go func() {
		_ = p.cmd.Wait()
		log.Close()
		liveMu.Lock()
		delete(live, p)
		liveMu.Unlock()
		close(p.done)
	}()
	t.Cleanup(p.Kill)
	return p
}

// starts are carried out by one thread that never ends: a process is signalled when the *thread* that
// started it does, and a proxy with hot restart asks for that by itself too.
var starts = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startOnLastingThread(cmd *exec.Cmd) error {
	done := make(chan error)
	starts() <- func() { done <- cmd.Start() }
	return <-done
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process at once and waits for it.
func (p *Process) Kill() {
	if p.group || p.Running() {
		p.kill()
	}
	<-p.done
}

func (p *Process) kill() {
	if p.group {
		// Its children may have outlived it.
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	} else {
		_ = p.cmd.Process.Kill()
	}
}

// Wait is the exit code, once the process has ended by itself.
func (p *Process) Wait(limit time.Duration) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(limit):
		return 0, errors.New("still running after " + limit.String())
	}
}

// Signal sends a signal and does not wait.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// Terminate sends SIGTERM and gives the exit code.
func (p *Process) Terminate(limit time.Duration) (int, error) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	return p.Wait(limit)
}

// Tail is the end of the process's output, for a failure's explanation.
func (p *Process) Tail(n int) string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	if len(text) > n {
		text = text[len(text)-n:]
	}
	return string(text)
}
