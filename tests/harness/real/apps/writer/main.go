// writer: appends its name to the journal of a volume ten times a second, and holds a lock on it. If another writer
// holds the lock, it records both in `conflicts`: a disk has no such lock, so data would be lost.
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	folder, name := os.Args[1], os.Getenv("WRITER")
	journal, err := os.OpenFile(filepath.Join(folder, "journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		log.Fatal(err)
	}
	if err := syscall.Flock(int(journal.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if err := os.WriteFile(filepath.Join(folder, "conflicts"), []byte(name+"\n"), 0o666); err != nil {
			log.Fatal(err)
		}
		log.Fatal("a second writer")
	}
	for {
		if _, err := fmt.Fprintln(journal, name); err != nil {
			log.Fatal(err)
		}
		select {
		case <-ended:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
