"""One worker for one piece of work: in the process (`flight`), and across the processes of a machine (`locks`)."""
