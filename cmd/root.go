package cmd

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
)

// Streams are a command's standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// commands make the subcommands, in the order of the help text.
var commands = []func(Streams) *cobra.Command{newConvertCommand, newVerifyCommand, newPlanCommand, newExportCommand, newInspectCommand, newBenchCommand, newVersionCommand}

const rootLong = `mlaconvert turns a Llama-type checkpoint (multi-head or grouped-query attention, safetensors) into one with
Multi-head Latent Attention that stock engines load as DeepseekV3ForCausalLM, by low-rank factorization and without
training.

Exit codes: 0 done, 1 other error, 3 verification failed, 4 not for the engine, 10 bad source, 11 unsupported source or
not for the engine, 12 output exists or cannot be resumed, 13 no space or memory, 64 wrong usage, 130 interrupted.`

func newRootCommand(s Streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "mlaconvert",
		Short:         "Convert checkpoints to Multi-head Latent Attention",
		Long:          rootLong,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := c.Help(); err != nil {
				return err
			}
			return usageError{errors.New("no command given")}
		},
	}
	for _, make := range commands {
		root.AddCommand(make(s))
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	return root
}

// Execute runs the command line args, without the program's name, and returns the exit code.
func Execute(ctx context.Context, args []string, s Streams) int {
	root := newRootCommand(s)
	root.SetArgs(args)
	ran := false // what fails before a command runs is its usage
	root.PersistentPreRun = func(*cobra.Command, []string) { ran = true }
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var wrong usageError
	if !ran && !errors.As(err, &wrong) {
		err = usageError{err}
	}
	printError(s.Err, c, err)
	return exitCode(err)
}
