package kit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are taken below the range the kernel hands to outgoing connections, so that no client of a
// running scenario can take a port between our look at it and the proxy's bind.
const (
	firstPort = 20000
	lastPort  = 32000
)

var (
	portsMu   sync.Mutex
	portsUsed = map[int]bool{}
)

// Port is one free port on 127.0.0.1, given once per run.
func (t *T) Port() int { return t.Ports(1) }

// Ports is the first of n free ports in a row.
func (t *T) Ports(n int) int {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 2000 {
		base := firstPort + rand.IntN(lastPort-firstPort-n)
		if allFree(base, n) {
			for p := base; p < base+n; p++ {
				portsUsed[p] = true
			}
			return base
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

func allFree(base, n int) bool {
	for p := base; p < base+n; p++ {
		if portsUsed[p] {
			return false
		}
		// The wildcard address: some control planes listen on it.
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
